// Opens an explanation from the disk, by day, by night and on a phone, with the keyboard alone.
// Variables: MUSTER_PAGE (a file), MUSTER_PICTURES (a folder for screenshots, if wanted).

import { audit, tabled, unfold, walk } from './access.mjs';
import { check, openWindow, quiet, withBrowser } from './browser.mjs';

const { MUSTER_PAGE: file, MUSTER_PICTURES: pictures } = process.env;
const url = `file://${file}`;

const WAYS = [
    ['day', {}],
    ['night', { colorScheme: 'dark' }],
    ['phone', { viewport: { width: 390, height: 844 } }],
];

/** Maps are chosen by arrows, and the large one is what was chosen. */
async function arrows(page) {
    const maps = page.locator('.maps').first();
    if ((await maps.count()) === 0) return;
    await maps.locator('button[tabindex="0"]').focus();
    await page.keyboard.press('ArrowRight');
    const name = await page.evaluate(() => document.activeElement.ariaLabel);
    check(name === 'layer 1, head 2', `an arrow leads to ${name}`);
    const large = await maps.locator('.large canvas').getAttribute('aria-label');
    check(large.startsWith('Attention of layer 1, head 2. '), large);
    await maps.getByText('Show as a table').click();
    await maps.locator('.large tbody td').first().waitFor();
}

await withBrowser(async (browser) => {
    for (const [way, options] of WAYS) {
        const { context, page, complaints } = await openWindow(browser, url, options);
        await page.goto(url);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(wide <= 1, `${way}: ${wide} pixels wider than the window`);
        quiet(complaints);
        await audit(page, way);
        if (way === 'day') {
            await walk(page, way);
            await arrows(page);
        }
        await unfold(page);
        await audit(page, `${way}, unfolded`);
        await tabled(page, way);
        if (pictures) await page.screenshot({ path: `${pictures}/explanation-${way}.png`, fullPage: true });
        await context.close();
    }
});
console.log('explained to everybody');
