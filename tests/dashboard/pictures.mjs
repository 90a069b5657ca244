// The pages with what a real sweep once answered (`recorded.json`), against the approved pictures of them.
// With MUSTER_BLESS=1 the pictures are made anew. What a picture shows is looked at by people; here it is compared,
// small and with a tolerance, because fonts and browsers differ a little from machine to machine.

import { readFileSync, writeFileSync } from 'node:fs';
import { check, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_BLESS: bless, MUSTER_REPOSITORY: repository } = process.env;
const folder = `${repository}/tests/dashboard`;
const { at_ms: at, answers } = JSON.parse(readFileSync(`${folder}/recorded.json`, 'utf8'));

/** Width that pictures are compared at. */
const WIDTH = 400;
/** Mean difference of a channel, of 255, that is no difference. */
const MEAN_MAX = 5;
/** Share of pixels that may differ by more than a quarter. */
const SHARE_MAX = 0.03;

const PAGES = [
    ['experiments', '/', {}],
    ['experiment', '/experiments/reviews-1', {}],
    ['experiment-dark', '/experiments/reviews-1', { colorScheme: 'dark' }],
    ['trial', '/experiments/reviews-1/trials/BEST', {}],
    ['cluster', '/cluster', {}],
    ['phone', '/experiments/reviews-1', { viewport: { width: 390, height: 844 } }],
];

/** What was recorded; what was not asked for then is missing. */
async function replay(page) {
    await page.route('**/api/v1/**', (route) => {
        const url = new URL(route.request().url());
        const path = url.pathname.replace('/api/v1', '');
        if (path === '/events' || path.endsWith('/live')) {
            return route.fulfill({ contentType: 'text/event-stream', body: 'retry: 600000\n\n' });
        }
        const known = answers[path + url.search];
        return known === undefined
            ? route.fulfill({ status: 404, json: { error: `not recorded: ${path}${url.search}` } })
            : route.fulfill({ json: known });
    });
}

/** A picture at the width of comparison, by the browser itself: it knows how to read and to scale pictures. */
function small(page, png) {
    return page.evaluate(
        async ([data, width]) => {
            const image = await createImageBitmap(await (await fetch(data)).blob());
            const height = Math.round((image.height * width) / image.width);
            const canvas = document.createElement('canvas');
            Object.assign(canvas, { width, height });
            const context = canvas.getContext('2d');
            context.imageSmoothingQuality = 'high';
            context.drawImage(image, 0, 0, width, height);
            return canvas.toDataURL('image/webp', 0.7);
        },
        [`data:image/png;base64,${png.toString('base64')}`, WIDTH],
    );
}

/** How two pictures differ; of different heights only what both have is compared, and the rest counts. */
function difference(page, one, other) {
    return page.evaluate(
        async (pictures) => {
            const pixels = await Promise.all(
                pictures.map(async (data) => {
                    const image = await createImageBitmap(await (await fetch(data)).blob());
                    const canvas = document.createElement('canvas');
                    Object.assign(canvas, { width: image.width, height: image.height });
                    const context = canvas.getContext('2d');
                    context.drawImage(image, 0, 0);
                    return context.getImageData(0, 0, image.width, image.height);
                }),
            );
            const [a, b] = pixels;
            const height = Math.min(a.height, b.height);
            let sum = 0;
            let far = 0;
            for (let place = 0; place < a.width * height; place += 1) {
                let most = 0;
                for (let channel = 0; channel < 3; channel += 1) {
                    const off = Math.abs(a.data[4 * place + channel] - b.data[4 * place + channel]);
                    sum += off;
                    most = Math.max(most, off);
                }
                far += most > 64 ? 1 : 0;
            }
            const count = a.width * height;
            return { mean: sum / (3 * count), share: far / count, heights: [a.height, b.height] };
        },
        [one, other],
    );
}

await withBrowser(async (browser) => {
    const desk = await (await browser.newContext()).newPage();
    const best = answers['/experiments/reviews-1'].best.trial;
    const found = [];
    for (const [name, path, options] of PAGES) {
        const { context, page, complaints } = await openWindow(browser, origin, options);
        await page.clock.setFixedTime(at);
        await replay(page);
        await page.goto(`${origin}${path.replace('BEST', best)}`);
        await ready(page);
        quiet(complaints);
        const fresh = await small(desk, await page.screenshot({ fullPage: true, animations: 'disabled' }));
        const file = `${folder}/approved/${name}.webp`;
        if (bless) {
            writeFileSync(file, Buffer.from(fresh.split(',')[1], 'base64'));
        } else {
            const approved = `data:image/webp;base64,${readFileSync(file).toString('base64')}`;
            const { mean, share, heights } = await difference(desk, approved, fresh);
            const isTall = Math.abs(heights[0] - heights[1]) > 0.04 * heights[0];
            found.push(
                `${name}: mean ${mean.toFixed(2)}, ${(100 * share).toFixed(2)} % far off, heights ${heights}`,
            );
            if (mean > MEAN_MAX || share > SHARE_MAX || isTall) {
                writeFileSync(`${name}.webp`, Buffer.from(fresh.split(',')[1], 'base64'));
                check(
                    false,
                    `${found.join('\n')}\n${name} looks different; look at it, and MUSTER_BLESS=1 approves it`,
                );
            }
        }
        await context.close();
    }
    console.log(found.join('\n'));
});
console.log(bless ? 'made anew, as approved' : 'as approved');
