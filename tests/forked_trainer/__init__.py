"""The trainer's processes as forks of one that has imported Axolotl: nine seconds of CPU less for each. So are the
launcher's commands that a test starts and does not wait for: one second.

`popen` is what starts them in the tests' processes and in the containers of the local Modal, `broker_script` is one
process that all of these talk to, `template_script` is the process that forks. The code of a step is the same as in a
separate process; its imports find everything imported.
"""
