"""A sweep as one HTML file that opens offline: its values are gathered here and drawn in the browser.

`gather` reads a store into JSON values, `page` puts them into the template, `watch` serves the page while a sweep runs.
The chart library, Apache ECharts (vendor/), is part of each file, so a report needs no network.
"""
