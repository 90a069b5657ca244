// The learning rates of a trial with `layer_decay`: a line, a name and a column for each group of parameters, the
// head's and those of two places below it, each with half the rate of the one above.
// Variables: MUSTER_URL, MUSTER_FINISHED.

import { check, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_FINISHED: finished, MUSTER_PICTURES: pictures } = process.env;
const GROUPS = [0, 1, 2];
/** Height of the names above the lines, pixels. */
const LEGEND = 30;

/** Points of each of the first colours among the names and among the lines of a picture. */
function coloured(box, [count, legend]) {
    const canvas = box.querySelector('canvas');
    const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const probe = document.createElement('span');
    document.body.append(probe);
    const marks = Array.from({ length: count }, (_, index) => {
        probe.style.color = `var(--mark-${index})`;
        return getComputedStyle(probe).color.match(/\d+/g).slice(0, 3).map(Number);
    });
    probe.remove();
    const found = marks.map(() => ({ names: 0, lines: 0 }));
    for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] < 200) continue;
        const index = marks.findIndex((mark) => mark.every((value, place) => Math.abs(value - data[at + place]) < 24));
        if (index < 0) continue;
        const row = Math.floor(at / 4 / width);
        if (row < legend) found[index].names += 1;
        else found[index].lines += 1;
    }
    return found;
}

await withBrowser(async (browser) => {
    const { page, complaints } = await openWindow(browser, origin);
    await page.goto(`${origin}/experiments/${finished}/trials/1`);
    await ready(page);
    const heading = page.getByRole('heading', { name: 'Learning rate', exact: true });
    const picture = page.locator('section.picture', { has: heading });
    await picture.scrollIntoViewIfNeeded();
    if (pictures) await picture.screenshot({ path: `${pictures}/groups.png` });
    const canvas = picture.locator('.canvas');

    // Words for those who do not see it.
    const said = await canvas.getAttribute('aria-label');
    for (const group of GROUPS) check(said.includes(`learning rate group ${group} from `), said);
    check(!said.includes('group 3'), said);

    // The rate of the whole and the groups, each with a name; the head's line lies on that of the whole.
    const found = await canvas.evaluate(coloured, [GROUPS.length + 1, LEGEND]);
    check(found.every((one) => one.names >= 8), `names: ${JSON.stringify(found)}`);
    check(found.slice(1).every((one) => one.lines >= 4), `lines: ${JSON.stringify(found)}`);

    // What is drawn, in numbers.
    await picture.getByText('Show as a table').click();
    await picture.locator('tbody tr').first().waitFor();
    const titles = await picture.locator('thead th').allTextContents();
    const names = ['learning rate', ...GROUPS.map((group) => `learning rate group ${group}`)];
    check(titles.join() === ['step', ...names].join(), `columns: ${titles}`);
    const rows = await picture
        .locator('tbody tr')
        .evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
    const whole = rows.filter((row) => !row.includes('-'));
    check(whole.length >= 1, `no step with all rates: ${JSON.stringify(rows)}`);
    for (const [step, rate, ...rates] of whole.map((row) => row.map(Number))) {
        check(rate >= 0 && rates.length === GROUPS.length, `step ${step}: ${rate}, ${rates}`);
        rates.forEach((one, group) => {
            const wanted = rate / 2 ** group;
            // Both are written with three digits at least.
            const isNear = Math.abs(one - wanted) <= 0.011 * wanted + 1e-12;
            check(isNear, `step ${step}, group ${group}: ${one}, not ${wanted}`);
        });
    }
    check(whole.some(([, rate]) => Number(rate) > 0), 'all rates are 0');
    quiet(complaints);
});
console.log(`${GROUPS.length} groups are drawn`);
