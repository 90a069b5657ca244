// Opens reports from the disk, as people do: in light and dark, on a desk and on a phone, on paper.
// Variables: MUSTER_PAGES (files, `:` between), MUSTER_PICTURES (a folder for screenshots, if wanted).

import { audit, tabled, unfold, walk } from './access.mjs';
import { check, openWindow, quiet, withBrowser } from './browser.mjs';

const { MUSTER_PAGES: pages, MUSTER_PICTURES: pictures } = process.env;

const WAYS = [
    ['light', {}],
    ['dark', { colorScheme: 'dark' }],
    ['phone', { viewport: { width: 390, height: 844 } }],
];

/** What a reader of the page meets; each picture is drawn, said and tabled. */
function look() {
    const canvases = [...document.querySelectorAll('.canvas')];
    const isDrawn = (box) => {
        const canvas = box.querySelector('canvas');
        if (!canvas) return false;
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value) => value !== 0);
    };
    const tables = [...document.querySelectorAll('table')];
    return {
        names: canvases.map((box) => box.dataset.picture),
        blank: canvases.filter((box) => !isDrawn(box)).map((box) => box.dataset.picture),
        unsaid: canvases.filter((box) => !(box.getAttribute('aria-label') ?? '').includes('. ')).length,
        untabled: canvases.filter((box) => !box.parentElement.querySelector('details table td')).length,
        headless: tables.filter((table) => !table.caption?.textContent || !table.querySelector('th[scope]')).length,
        wide: document.documentElement.scrollWidth > innerWidth + 1,
        headings: [...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => Number(heading.tagName[1])),
        ids: [...document.querySelectorAll('[id]')].map((element) => element.id),
        links: [...document.querySelectorAll('nav a')].map((link) => link.hash.slice(1)),
    };
}

await withBrowser(async (browser) => {
    for (const [place, file] of pages.split(':').entries()) {
        const url = `file://${file}`;
        for (const [way, options] of WAYS) {
            const { context, page, complaints } = await openWindow(browser, url, options);
            await page.goto(url);
            await page.waitForSelector('body[data-ready="true"]');
            await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
            const seen = await page.evaluate(look);
            const where = `${file} ${way}`;
            check(seen.names.length >= 2, `${where}: pictures ${seen.names}`);
            check(seen.blank.length === 0, `${where}: blank ${seen.blank}`);
            check(seen.unsaid + seen.untabled + seen.headless === 0, `${where}: ${JSON.stringify(seen)}`);
            check(!seen.wide, `${where}: wider than the window`);
            check(new Set(seen.ids).size === seen.ids.length, `${where}: an id twice: ${seen.ids}`);
            check(seen.links.every((link) => seen.ids.includes(link)), `${where}: a link to nowhere`);
            check(
                seen.headings.every((level, at) => at === 0 || level <= seen.headings[at - 1] + 1),
                `${where}: headings leave out a level: ${seen.headings}`,
            );
            if (pictures) await page.screenshot({ path: `${pictures}/${place}-${way}.png`, fullPage: true });
            if (way === 'dark') {
                const paper = await page.pdf({ format: 'A4' });
                check(paper.length > 10000, `${where}: an empty print`);
                if (pictures) await page.pdf({ path: `${pictures}/${place}.pdf`, format: 'A4' });
            }
            quiet(complaints);
            await audit(page, where);
            if (way === 'light') await walk(page, where);
            await unfold(page);
            await audit(page, `${where}, unfolded`);
            await tabled(page, where);
            await context.close();
        }
    }
});
console.log('every report is drawn');
