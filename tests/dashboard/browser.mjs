// What the scripts share: a browser that reaches nothing but the coordinator, and that notes every complaint.

import { createRequire } from 'node:module';

const require = createRequire(`${process.env.MUSTER_MODULES}/`);
const { chromium } = require('playwright-core');

/** Everything that anything waits for takes less, on a busy machine too. */
export const PATIENCE_MS = 120000;

/** Calls `work(browser)` with a browser, and ends it whatever happens. */
export async function withBrowser(work) {
    const browser = await chromium.launch({
        executablePath: process.env.MUSTER_CHROMIUM ?? '/usr/bin/chromium',
        args: [
            '--no-sandbox',
            '--disable-gpu',
            '--disable-dev-shm-usage',
            '--font-render-hinting=none',
            '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
        ],
        timeout: PATIENCE_MS,
    });
    try {
        await work(browser);
    } finally {
        await browser.close();
    }
}

/** A window; `complaints` grows by what the console, the page or the network says. */
export async function openWindow(browser, origin, options = {}) {
    const context = await browser.newContext({
        viewport: { width: 1280, height: 900 },
        timezoneId: 'UTC',
        locale: 'en-GB',
        reducedMotion: 'reduce',
        ignoreHTTPSErrors: true,
        ...options,
    });
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    const complaints = [];
    page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`);
    });
    page.on('pageerror', (error) => complaints.push(`page: ${error.stack ?? error}`));
    page.on('request', (request) => {
        const { protocol } = new URL(request.url());
        if (!request.url().startsWith(origin) && protocol !== 'data:' && protocol !== 'blob:') {
            complaints.push(`outside: ${request.url()}`);
        }
    });
    page.on('response', (response) => {
        if (response.status() >= 400) complaints.push(`${response.status()}: ${response.url()}`);
    });
    return { context, page, complaints };
}

/** Waits until the page has its data and its pictures are drawn. */
export async function ready(page) {
    await page.waitForSelector('main[data-ready="true"]');
    await page.waitForFunction(() =>
        [...document.querySelectorAll('.canvas')].every(
            (canvas) => !canvas.checkVisibility() || canvas.dataset.ready === 'true',
        ),
    );
    // What was drawn is on the screen after two frames.
    await page.evaluate(
        () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
    );
}

/** Ticks the two best trials of an experiment; the part of the page that has them side by side, drawn. */
export async function compareTwo(page) {
    const heading = page.getByRole('heading', { name: 'Trials', exact: true });
    const boxes = page.locator('section', { has: heading }).getByRole('checkbox');
    for (const place of [0, 1]) await boxes.nth(place).check();
    const compared = page.locator('section.compared');
    await compared.locator('thead th').nth(1).waitFor();
    await compared.locator('.canvas[data-ready="true"]').waitFor();
    await ready(page);
    return compared;
}

/** The answer to a dialog. */
export async function answer(page, verb) {
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    await dialog.getByRole('button', { name: verb, exact: true }).click();
    await dialog.waitFor({ state: 'detached' });
}

export function check(isTrue, text) {
    if (!isTrue) throw new Error(text);
}

/** No complaint, or an error that tells all. */
export function quiet(complaints) {
    check(complaints.length === 0, `complaints:\n${complaints.join('\n')}`);
}
