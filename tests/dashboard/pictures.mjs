// The pages with what a real sweep once answered (`recorded.json`), against the approved pictures of them.
// With MUSTER_BLESS=1 the pictures are made anew. What a picture shows is looked at by people; here it is compared,
// small and with a tolerance, because fonts and browsers differ a little from machine to machine.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { check, compareTwo, openWindow, quiet, ready, withBrowser } from './browser.mjs';
import { best, openRecorded } from './recorded.mjs';

const {
    MUSTER_URL: origin,
    MUSTER_ASKING: asking,
    MUSTER_BLESS: bless,
    MUSTER_REPOSITORY: repository,
} = process.env;
const folder = `${repository}/tests/dashboard`;

/** Pixels of a window that are one of a compared picture. */
const SCALE = 3.2;
/** Side of the squares that are compared, in compared pixels. */
const SQUARE = 16;
/** Mean difference of a channel, of 255, that a square may have: another font's edges are less. */
const MEAN_MAX = 12;
/** Share of the squares that may differ by more. */
const SHARE_MAX = 0.004;
/** What no square may differ by. */
const FAR_MAX = 60;

/** The page on which a token is shown; only a coordinator that asks for one has it. */
const LOGIN = '/login?why=expired';

const PAGES = [
    ['experiments', '/', {}],
    ['experiment', '/experiments/reviews-1', {}],
    ['experiment-dark', '/experiments/reviews-1', { colorScheme: 'dark' }],
    ['trial', '/experiments/reviews-1/trials/BEST', {}],
    ['cluster', '/cluster', {}],
    ['phone', '/experiments/reviews-1', { viewport: { width: 390, height: 844 } }],
    ['contour', '/experiments/reviews-1', {}, contour],
    ['compare', '/experiments/reviews-1', {}, compareTwo],
    ['compare-dark', '/experiments/reviews-1', { colorScheme: 'dark' }, compareTwo],
    ['login', LOGIN, {}],
    ['login-dark', LOGIN, { colorScheme: 'dark' }],
];

/** The part of the page with two hyperparameters against each other, as a surface. */
async function contour(page) {
    await page.getByLabel('as', { exact: true }).selectOption('contour');
    await ready(page);
    return page.locator('section', {
        has: page.getByRole('heading', { name: 'Any two against each other', exact: true }),
    });
}

async function openLogin(browser, options) {
    const { context, page, complaints } = await openWindow(browser, asking, options);
    await page.goto(`${asking}${LOGIN}`, { waitUntil: 'networkidle' });
    check((await page.locator('main.login').count()) === 1, 'there is no login to be seen');
    return { context, page, complaints };
}

/** What the README shows: the first part of a page. */
const FIRST = {
    name: 'experiment',
    clip: { x: 0, y: 0, width: 1280, height: 768 },
    width: 960,
    file: `${repository}/coordinator/assets/dashboard.webp`,
};

/** A picture at the width of comparison, by the browser itself: it knows how to read and to scale pictures. */
function small(page, png, width, quality = 0.7) {
    return page.evaluate(
        async ([data, width, quality]) => {
            const image = await createImageBitmap(await (await fetch(data)).blob());
            const height = Math.round((image.height * width) / image.width);
            const canvas = document.createElement('canvas');
            Object.assign(canvas, { width, height });
            const context = canvas.getContext('2d');
            context.imageSmoothingQuality = 'high';
            context.drawImage(image, 0, 0, width, height);
            return canvas.toDataURL('image/webp', quality);
        },
        [`data:image/png;base64,${png.toString('base64')}`, width, quality],
    );
}

function write(file, picture) {
    writeFileSync(file, Buffer.from(picture.split(',')[1], 'base64'));
}

/** How two pictures differ, square by square; of different heights what both have is compared. */
function difference(page, one, other) {
    const work = async ([pictures, square, most]) => {
        const read = async (data) => {
            const image = await createImageBitmap(await (await fetch(data)).blob());
            const canvas = document.createElement('canvas');
            Object.assign(canvas, { width: image.width, height: image.height });
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            return context.getImageData(0, 0, image.width, image.height);
        };
        const [a, b] = await Promise.all(pictures.map(read));
        const height = Math.min(a.height, b.height);
        const means = [];
        for (let top = 0; top + square <= height; top += square) {
            for (let left = 0; left + square <= a.width; left += square) {
                let sum = 0;
                for (let place = 0; place < square * square; place += 1) {
                    const row = top + Math.floor(place / square);
                    const at = 4 * (row * a.width + left + (place % square));
                    for (let channel = 0; channel < 3; channel += 1) {
                        sum += Math.abs(a.data[at + channel] - b.data[at + channel]);
                    }
                }
                means.push(sum / (3 * square * square));
            }
        }
        const share = means.filter((mean) => mean > most).length / means.length;
        return { share, far: Math.max(...means), heights: [a.height, b.height] };
    };
    return page.evaluate(work, [[one, other], SQUARE, MEAN_MAX]);
}

await withBrowser(async (browser) => {
    const desk = await (await browser.newContext()).newPage();
    const found = [];
    for (const [name, path, options, part] of PAGES) {
        const opened =
            path === LOGIN
                ? openLogin(browser, options)
                : openRecorded(browser, origin, path.replace('BEST', best), options);
        const { context, page, complaints } = await opened;
        const pictured = part ? await part(page) : page;
        quiet(complaints);
        const png = await pictured.screenshot({ ...(part ? {} : { fullPage: true }), animations: 'disabled' });
        const fresh = await small(desk, png, Math.round(page.viewportSize().width / SCALE));
        const file = `${folder}/approved/${name}.webp`;
        if (bless) {
            write(file, fresh);
            if (name === FIRST.name) {
                const first = await page.screenshot({ clip: FIRST.clip });
                write(FIRST.file, await small(desk, first, FIRST.width, 0.8));
            }
        } else {
            check(existsSync(file), `no picture of ${name} is approved; MUSTER_BLESS=1 makes it, then look at it`);
            const approved = `data:image/webp;base64,${readFileSync(file).toString('base64')}`;
            const { share, far, heights } = await difference(desk, approved, fresh);
            const isTall = Math.abs(heights[0] - heights[1]) > 0.04 * heights[0];
            const percent = (100 * share).toFixed(2);
            found.push(
                `${name}: ${percent} % of squares differ, at most by ${far.toFixed(1)}, heights ${heights}`,
            );
            if (share > SHARE_MAX || far > FAR_MAX || isTall) {
                write(`${name}.webp`, fresh);
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
