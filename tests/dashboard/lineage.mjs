// Members of a population that went on from others: each page says from whom, at which rung and step, and leads there
// and back. Variables: MUSTER_URL, MUSTER_FINISHED.

import { audit } from './access.mjs';
import { check, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_FINISHED: finished, MUSTER_PICTURES: pictures } = process.env;
const experiment = `/experiments/${finished}`;

async function api(path) {
    const response = await fetch(`${origin}/api/v1${experiment}${path}`, { signal: AbortSignal.timeout(30000) });
    check(response.ok, `${path}: ${response.status}`);
    return response.json();
}

/** The part of a trial's page that says why it is where it is. */
function reasons(page) {
    return page.locator('section', { has: page.getByRole('heading', { name: 'Why it is where it is' }) });
}

async function visit(page, number) {
    await page.goto(`${origin}${experiment}/trials/${number}`);
    await ready(page);
}

/** Follows a link and waits for the page of trial `number`. */
async function follow(page, link, number) {
    await link.click();
    await page.waitForURL(`**${experiment}/trials/${number}`);
    await page.getByRole('heading', { level: 1, name: new RegExp(`^t${number}\\b`) }).waitFor();
    await ready(page);
}

/** What the page of a member says is what happened, and every step of it leads to the other and back. */
async function descended(page, child) {
    await visit(page, child.number);
    const lines = reasons(page).locator('h3:text-is("Lineage") + ul > li');
    const texts = await lines.allTextContents();
    check(texts.length === child.lineage.length, `t${child.number}: ${texts.join('\n')}`);
    for (const [place, one] of child.lineage.entries()) {
        const text = texts[place];
        const from = `step ${one.parent_step} of t${one.parent}`;
        const wanted = `at rung ${one.rung} it went on from ${from}, until then with `;
        check(text.startsWith(wanted), `"${text}", not "${wanted}"`);
        for (const name of Object.keys(one.before)) check(text.includes(name.replaceAll('_', ' ')), `${name}: ${text}`);
        check(Object.keys(one.before).length > 0 && one.parent_step > 0, JSON.stringify(one));
    }
    const [first] = child.lineage;
    await follow(page, lines.first().getByRole('link', { name: `t${first.parent}`, exact: true }), first.parent);
    const heirs = reasons(page).locator('p', { hasText: 'Went on from it:' });
    await follow(page, heirs.getByRole('link', { name: `t${child.number}`, exact: true }), child.number);
}

await withBrowser(async (browser) => {
    const { trials } = await api('/trials');
    const all = await Promise.all(trials.map(({ number }) => api(`/trials/${number}`)));
    const children = all.filter((one) => one.lineage.length);
    check(children.length >= 1, `nobody went on from anybody: ${JSON.stringify(all.map((one) => one.why))}`);
    const { page, complaints } = await openWindow(browser, origin);
    for (const child of children) await descended(page, child);
    await visit(page, children[0].number);
    await audit(page, 'a trial with lineage');
    if (pictures) await page.screenshot({ path: `${pictures}/lineage.png`, fullPage: true });
    quiet(complaints);
    console.log(`the descent of ${children.length} members is told`);
});
