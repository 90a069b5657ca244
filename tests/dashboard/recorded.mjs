// The dashboard with what a coordinator once answered about a real sweep (`recorded.json`): the same again and again.

import { readFileSync } from 'node:fs';
import { openWindow, quiet, ready } from './browser.mjs';

const file = `${process.env.MUSTER_REPOSITORY}/tests/dashboard/recorded.json`;
const { at_ms: at, answers } = JSON.parse(readFileSync(file, 'utf8'));

/** Number of the best trial. */
export const best = answers['/experiments/reviews-1'].best.trial;

/** What was recorded; what was not asked for then is missing. */
async function replay(page) {
    // Nothing changes any more, but the page shall not think that it is alone.
    await page.addInitScript(() => {
        window.EventSource = class extends EventTarget {
            constructor() {
                super();
                setTimeout(() => this.dispatchEvent(new Event('open')));
            }
            close() {}
        };
    });
    await page.route('**/api/v1/**', (route) => {
        const url = new URL(route.request().url());
        const path = url.pathname.replace('/api/v1', '');
        const known = answers[path + url.search];
        return known === undefined
            ? route.fulfill({ status: 404, json: { error: `not recorded: ${path}${url.search}` } })
            : route.fulfill({ json: known });
    });
}

/** A window with a page of it, whose data is there and whose pictures are drawn. */
export async function openRecorded(browser, origin, path, options) {
    const { context, page, complaints } = await openWindow(browser, origin, options);
    await page.clock.setFixedTime(at);
    await replay(page);
    await page.goto(`${origin}${path}`);
    await ready(page);
    quiet(complaints);
    return { context, page, complaints };
}
