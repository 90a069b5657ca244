// Every page of the dashboard without a mouse and with few colours: by day, by night and on a phone, with everything
// folded and unfolded, and with a dialog open. Variables: MUSTER_URL.

import { audit, tabled, unfold, walk } from './access.mjs';
import { check, withBrowser } from './browser.mjs';
import { best, openRecorded } from './recorded.mjs';

const { MUSTER_URL: origin } = process.env;
const EXPERIMENT = '/experiments/reviews-1';

const PAGES = ['/', EXPERIMENT, `${EXPERIMENT}/trials/${best}`, '/cluster'];
const WAYS = [
    ['by day', {}],
    ['by night', { colorScheme: 'dark' }],
    ['on a phone', { viewport: { width: 390, height: 844 }, colorScheme: 'dark', isMobile: true, hasTouch: true }],
];

/** A dialog takes the keyboard, keeps it, and gives it back. */
async function dialog(page) {
    const button = page.getByRole('button', { name: 'Fork' });
    await button.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    // What lies under it is no neighbour of its buttons.
    await audit(page, 'a dialog', { within: 'dialog', without: ['target-size'] });
    for (let press = 0; press < 12; press += 1) {
        await page.keyboard.press('Tab');
        const isOutside = await page.evaluate(() => {
            const one = document.activeElement;
            return one !== document.body && !one.closest('dialog');
        });
        check(!isOutside, 'the keyboard leaves an open dialog');
    }
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    const text = await page.evaluate(() => document.activeElement.textContent);
    check(text === 'Fork', `the keyboard is at "${text}" after a dialog`);
}

await withBrowser(async (browser) => {
    for (const [way, options] of WAYS) {
        for (const path of PAGES) {
            const where = `${path} ${way}`;
            const { context, page } = await openRecorded(browser, origin, path, options);
            await audit(page, where);
            if (way === 'by day') await walk(page, where);
            await unfold(page);
            await audit(page, `${where}, unfolded`);
            await tabled(page, where);
            await context.close();
        }
    }
    const { context, page } = await openRecorded(browser, origin, EXPERIMENT, {});
    await dialog(page);
    await context.close();
});
console.log('usable without a mouse and with few colours');
