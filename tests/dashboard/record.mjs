// Writes recorded.json: what a coordinator answers to the pages of a finished experiment, for `pictures.mjs`.
// Variables: MUSTER_URL, MUSTER_FINISHED. Paths of the machine are cut to their last two parts.

import { writeFileSync } from 'node:fs';
import { compareTwo, openWindow, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_FINISHED: finished, MUSTER_REPOSITORY: repository } = process.env;
const answers = {};

function trimmed(value) {
    if (typeof value === 'string') return value.replace(/\/(?:[\w.-]+\/)+([\w.-]+\/[\w.-]+)/g, '$1');
    if (Array.isArray(value)) return value.map(trimmed);
    if (value && typeof value === 'object')
        return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, trimmed(one)]));
    return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value;
}

await withBrowser(async (browser) => {
    const { page } = await openWindow(browser, origin);
    page.on('response', async (response) => {
        const url = new URL(response.url());
        const isOne =
            url.pathname.startsWith('/api/v1') && response.headers()['content-type'] === 'application/json';
        if (isOne) answers[url.pathname.replace('/api/v1', '') + url.search] = trimmed(await response.json());
    });
    for (const path of ['/', '/cluster', `/experiments/${finished}`]) {
        await page.goto(`${origin}${path}`);
        await ready(page);
    }
    await compareTwo(page);
    await page.locator('.tiles a').first().click();
    await page.waitForURL(/trials\/\d+$/);
    await ready(page);
    await page.waitForTimeout(500);
});
const at = answers[`/experiments/${finished}`].now_ms;
writeFileSync(`${repository}/tests/dashboard/recorded.json`, `${JSON.stringify({ at_ms: at, answers })}\n`);
console.log(`${Object.keys(answers).length} answers`);
