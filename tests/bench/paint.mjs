// How long pages with many trials take in a real browser, and what they ask for. Prints one JSON object.
// Variables: MUSTER_URL, MUSTER_PAGES (a JSON list of paths), MUSTER_VISITS, MUSTER_KIND (`muster` or `optuna`).

import { openWindow, ready, withBrowser } from '../dashboard/browser.mjs';

const { MUSTER_URL: origin, MUSTER_KIND: kind } = process.env;
const pages = JSON.parse(process.env.MUSTER_PAGES);
const asked = new Set();

/** Notes what is asked for; streams have no end that one could wait for. */
function note(page) {
    page.on('request', (request) => {
        const url = new URL(request.url());
        const isStream = url.pathname.endsWith('/events') || url.pathname.endsWith('/live');
        if (url.pathname.startsWith('/api/') && request.method() === 'GET' && !isStream) {
            asked.add(url.pathname + url.search);
        }
    });
}

/** Until the reader sees what the page is for. */
async function seen(page, path) {
    if (kind === 'muster') return ready(page);
    const isStudy = /studies\/\d/.test(path);
    await page.waitForSelector(isStudy ? '.js-plotly-plot .main-svg' : 'a[href*="/studies/"]');
    return page.evaluate(
        () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
    );
}

/** One page with nothing in the browser's cache. */
async function visit(browser, path) {
    const { context, page } = await openWindow(browser, origin);
    note(page);
    await page.goto(origin + path);
    await seen(page, path);
    const times = await page.evaluate(() => ({
        first_paint_s: performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000,
        ready_s: performance.now() / 1000,
    }));
    await context.close();
    return times;
}

/** What people do with a table of trials, and a trial: more addresses. */
async function explore(browser) {
    const { context, page } = await openWindow(browser, origin);
    note(page);
    await page.goto(origin + pages[1]);
    await ready(page);
    const trials = page.locator('section', {
        has: page.getByRole('heading', { name: 'Trials', exact: true }),
    });
    const answered = (part) => page.waitForResponse((one) => one.url().includes(part));
    const columns = await trials.locator('button.sort').evaluateAll((all) => all.map((one) => one.dataset.sort));
    for (const column of columns.filter((one) => one !== 'rank')) {
        const answer = answered(`sort=${column}`);
        await trials.locator(`button.sort[data-sort="${column}"]`).click();
        await answer;
    }
    for (const state of ['completed', 'stopped', '']) {
        const answer = answered(state ? `state=${state}` : '/trials?sort=');
        await trials.getByLabel('state').selectOption(state);
        await answer;
    }
    const answer = answered('page=2');
    await trials.getByRole('button', { name: 'Next' }).click();
    await answer;
    await page.goto(`${origin}${pages[1]}/trials/1`);
    await ready(page);
    await context.close();
}

await withBrowser(async (browser) => {
    const visits = [];
    for (let count = 0; count < Number(process.env.MUSTER_VISITS); count += 1) {
        const one = {};
        for (const path of pages) one[path] = await visit(browser, path);
        visits.push(one);
    }
    if (kind === 'muster') await explore(browser);
    console.log(JSON.stringify({ visits, requests: [...asked] }));
});
