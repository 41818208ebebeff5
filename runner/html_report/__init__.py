"""A sweep as one HTML file that opens offline: gathered as plain values, drawn in the browser.

`gather` reads a store into JSON values, `page` puts them into the template, `watch` serves the page while a sweep runs.
The charts are Apache ECharts' (vendor/), put into each file, so that a report needs nothing from anywhere.
"""
