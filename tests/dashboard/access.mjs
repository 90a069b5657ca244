// Whether pages can be used by those who see little, see few colours, or have no mouse: the rules of axe-core, and what
// they leave out.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { check } from './browser.mjs';

const require = createRequire(`${process.env.MUSTER_MODULES}/`);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** Rules of WCAG 2.2, levels A and AA, and what the makers of axe-core have found to be good besides. */
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
/** Contrast of text, of large one too. */
const CONTRAST = { normal: { expected: 4.5 }, large: { expected: 4.5 } };
/** What one can get to with the keyboard. */
const STOPS = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]';

/** Opens everything that is folded, and waits until it is filled. */
export async function unfold(page) {
    await page.evaluate(async () => {
        for (const fold of document.querySelectorAll('details')) fold.open = true;
        // The event that fills a table comes a moment later.
        await new Promise((done) => setTimeout(done, 200));
    });
}

/**
 * Fails with every fault of a page, or of what is `within` it; `where` names it. What is folded is not looked at, nor
 * are the rules `without`.
 */
export async function audit(page, where, { within = 'html', without = [] } = {}) {
    await page.evaluate(axe);
    const found = await page.evaluate(
        async ([rules, contrast, within, without]) => {
            const { violations, passes } = await window.axe.run(within, {
                rules: Object.fromEntries(without.map((rule) => [rule, { enabled: false }])),
                runOnly: { type: 'tag', values: rules },
                checks: { 'color-contrast': { options: { contrastRatio: contrast } } },
                // Style sheets of other hosts would be fetched; there are none.
                preload: false,
            });
            const place = (node) => `${node.target.join(' ')}: ${node.failureSummary}`;
            return {
                faults: violations.map((one) => `${one.id}: ${one.help}\n  ${one.nodes.map(place).join('\n  ')}`),
                hasContrast: passes.some((one) => one.id === 'color-contrast'),
                numRules: passes.length,
            };
        },
        [RULES, CONTRAST, within, without],
    );
    check(found.faults.length === 0, `${where}:\n${found.faults.join('\n')}`);
    check(found.hasContrast && found.numRules > 4, `${where}: hardly anything was looked at: ${found.numRules} rules`);
    const own = await page.evaluate(() => {
        const wrong = [];
        const pictures = [...document.querySelectorAll('.canvas, svg[role="img"], .large canvas')];
        for (const picture of pictures.filter((one) => one.checkVisibility())) {
            const frame = picture.closest('section.picture, figure, .large, section');
            const name = picture.getAttribute('aria-label') ?? '';
            if (!/[.:] /.test(name)) wrong.push(`a picture without words: ${name}`);
            if (!frame?.querySelector('details')) wrong.push(`a picture without a table: ${name}`);
        }
        for (const one of document.querySelectorAll('[tabindex]')) {
            if (one.tabIndex > 0) wrong.push(`before its turn: ${one.outerHTML.slice(0, 90)}`);
        }
        return wrong;
    });
    check(own.length === 0, `${where}:\n${own.join('\n')}`);
}

/** Every picture has rows behind it once its table is unfolded. */
export async function tabled(page, where) {
    const bare = await page.evaluate(() => {
        const pictures = [...document.querySelectorAll('.canvas, svg[role="img"]')];
        const shown = pictures.filter((one) => one.checkVisibility());
        const frames = shown.map((one) => one.closest('section.picture, figure'));
        const isBare = (one) => !one?.querySelector('details table tbody td');
        return frames.filter(isBare).map((one) => one?.textContent.slice(0, 60));
    });
    check(bare.length === 0, `${where}: no rows behind ${bare.join('; ')}`);
}

/** Goes through a page by the tabulator: everything is reached, and it is seen where one is. */
export async function walk(page, where) {
    const count = await page.evaluate((stops) => {
        document.activeElement?.blur();
        window.stops = [...document.querySelectorAll(stops)].filter(
            (one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility({ visibilityProperty: true }),
        );
        return window.stops.length;
    }, STOPS);
    check(count > 0, `${where}: nothing to get to`);
    const reached = new Set();
    const hidden = new Set();
    // Things that scroll are stops of the browser's own, and at the end it begins again.
    for (let press = 0; press < 2 * count + 20 && reached.size < count; press += 1) {
        await page.keyboard.press('Tab');
        const at = await page.evaluate(() => {
            const one = document.activeElement;
            const { outlineStyle, outlineWidth } = getComputedStyle(one);
            const { top, bottom, left, right } = one.getBoundingClientRect();
            const isInView = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
            const isOutlined = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1;
            return {
                place: window.stops.indexOf(one),
                isSeen: isOutlined && isInView,
                text: one.outerHTML.slice(0, 120),
            };
        });
        if (at.place < 0) continue;
        reached.add(at.place);
        if (!at.isSeen) hidden.add(at.text);
    }
    const left = await page.evaluate(
        (known) => window.stops.filter((_, place) => !known.includes(place)).map((one) => one.outerHTML.slice(0, 120)),
        [...reached],
    );
    check(left.length === 0, `${where}: not reached:\n${left.join('\n')}`);
    check(hidden.size === 0, `${where}: nobody sees that one is here:\n${[...hidden].join('\n')}`);
}
