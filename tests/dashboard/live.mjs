// Every page against a real coordinator with a finished and a running experiment, then what people may do.
// Variables: MUSTER_URL, MUSTER_FINISHED, MUSTER_RUNNING.

import { PATIENCE_MS, answer, check, compareTwo, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const {
    MUSTER_URL: origin,
    MUSTER_FINISHED: finished,
    MUSTER_RUNNING: running,
    MUSTER_PICTURES: pictures,
} = process.env;

async function visit(page, path) {
    await page.goto(`${origin}${path}`);
    await ready(page);
    return page.innerText('main');
}

async function shot(page, name) {
    if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

/** What somebody who does not see the pictures is told, and whether everything has a name. */
async function accessible(page, path) {
    const found = await page.evaluate(() => {
        const wrong = [];
        const isShown = (element) => element.checkVisibility();
        for (const part of document.querySelectorAll('section')) {
            const name = document.getElementById(part.getAttribute('aria-labelledby'))?.textContent;
            if (!name) wrong.push(`a section without a name: ${part.className}`);
        }
        for (const input of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
            if (isShown(input) && !input.labels?.length && !input.ariaLabel)
                wrong.push(`a field without a label: ${input.outerHTML}`);
        }
        for (const button of document.querySelectorAll('button')) {
            if (!button.textContent.trim() && !button.ariaLabel) wrong.push('a button without a name');
        }
        for (const canvas of document.querySelectorAll('.canvas')) {
            if (canvas.checkVisibility() && !(canvas.getAttribute('aria-label') ?? '').includes('. '))
                wrong.push(`a picture without words: ${canvas.outerHTML.slice(0, 90)}`);
        }
        if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
        if (
            !document.querySelector('header') ||
            !document.querySelector('main') ||
            !document.querySelector('nav')
        )
            wrong.push('a landmark is missing');
        for (const table of document.querySelectorAll('main table')) {
            if (!table.caption?.textContent) wrong.push('a table without a caption');
        }
        return wrong;
    });
    check(found.length === 0, `${path}: ${found.join('\n')}`);
}

async function lookAtFinished(page) {
    const list = await visit(page, '/');
    check(list.includes(finished) && list.includes('completed'), list);
    await accessible(page, '/');
    await shot(page, 'experiments');
    const text = await visit(page, `/experiments/${finished}`);
    for (const words of [
        'Learning curves',
        'Parallel coordinates',
        'Importance of hyperparameters',
        'Rung ladder',
        'Timeline of slots',
        'Any two against each other',
        'Search history',
        'Saved by early stopping',
        'Trials',
        'Set-up',
        'What was decided',
    ]) {
        check(text.includes(words), `no "${words}" in ${text}`);
    }
    await accessible(page, 'experiment');
    await shot(page, 'experiment');
    const drawn = await page.locator('.canvas:not([hidden]) canvas').count();
    check(drawn >= 4, `${drawn} pictures`);

    // A table stands behind a picture.
    const learning = page.locator('section.picture', {
        has: page.getByRole('heading', { name: 'Learning curves' }),
    });
    await learning.getByText('Show as a table').click();
    check((await learning.locator('tbody tr').count()) > 2, 'no rows behind the curves');

    // Sorted and filtered by the coordinator.
    const trials = page.locator('section', {
        has: page.getByRole('heading', { name: 'Trials', exact: true }),
    });
    await trials.getByRole('button', { name: 'learning rate' }).click();
    await page.waitForFunction(() =>
        document.querySelector('th[aria-sort="ascending"]')?.textContent.includes('learning rate'),
    );
    await trials.getByLabel('state').selectOption('stopped');
    await page.waitForFunction(() =>
        [...document.querySelectorAll('section td .badge')].some((one) => one.textContent === 'stopped'),
    );
    await trials.getByLabel('state').selectOption('');

    // Two of them side by side.
    await compareTwo(page);

    // The contour.
    await page.getByLabel('as', { exact: true }).selectOption('contour');
    await ready(page);
    await shot(page, 'experiment-contour');

    await page.locator('.tiles a').first().click();
    await page.waitForURL(/trials\/\d+$/);
    await ready(page);
    const best = await page.innerText('main');
    for (const words of [
        'Why it is where it is',
        'Loss',
        'Learning rate',
        'Gradient norm',
        'Examples per second',
        'Processor cores at work',
        'Memory',
        'Confusion matrix',
        'Classification report',
        'Test split',
        'Checkpoints',
        'Trained with',
        'libtorch',
        'Log',
        'precision',
    ]) {
        check(best.includes(words), `no "${words}" in ${best}`);
    }
    check(!best.includes('Lineage'), 'lineage of a trial that went on from nobody');
    await page.waitForFunction(() => document.querySelector('.log').textContent.length > 40);
    await accessible(page, 'trial');
    await shot(page, 'trial');
}

async function act(page) {
    await visit(page, `/experiments/${running}`);
    const head = page.locator('.head').first();
    const shows = (word) => head.locator('.badge', { hasText: word }).waitFor();
    await shot(page, 'running');
    // Nothing happens without a second word.
    await head.getByRole('button', { name: 'Pause' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Leave it' }).click();
    check(!(await head.innerText()).includes('paused'), 'paused without a yes');
    await head.getByRole('button', { name: 'Pause' }).click();
    await answer(page, 'Pause');
    // Seen without a reload.
    await shows('paused');
    await head.getByRole('button', { name: 'Resume' }).click();
    await answer(page, 'Resume');
    await shows('searching');
    await head.getByRole('button', { name: 'Priority' }).click();
    await page.getByLabel('Priority', { exact: true }).fill('3');
    await answer(page, 'Set');
    await page.getByText('priority 3 instead of 0').waitFor();
    // A wrong change is said in the dialog.
    await head.getByRole('button', { name: 'Fork' }).click();
    await page.getByLabel(/Changes of the manifest/).fill('nonsense');
    await page.getByRole('dialog').getByRole('button', { name: 'Show the manifest' }).click();
    await page.getByRole('dialog').getByRole('alert').waitFor();
    await page.getByLabel(/Changes of the manifest/).fill('description=made in a browser');
    await page.getByRole('dialog').getByRole('button', { name: 'Show the manifest' }).click();
    await page.getByRole('dialog').getByText('made in a browser').last().waitFor();
    await answer(page, 'Fork');
    await page.waitForURL(
        (url) => url.pathname.startsWith('/experiments/') && !url.pathname.endsWith(`/${running}`),
    );
    await ready(page);
    await page.getByText('made in a browser').first().waitFor();
    await page.locator('.head').first().getByRole('button', { name: 'Cancel' }).click();
    await answer(page, 'Cancel');
    await shows('canceled');
}

/** Asks for something as a script does, past the page: only events can tell the page of it. */
async function outside(path) {
    const response = await fetch(`${origin}/api/v1/experiments/${running}/${path}`, {
        method: 'POST',
        headers: { 'x-muster-request': '1' },
        signal: AbortSignal.timeout(30000),
    });
    check(response.ok, `${path}: ${response.status} ${await response.text()}`);
}

async function untilNothingRuns() {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
        const response = await fetch(`${origin}/api/v1/experiments/${running}`);
        const { trials } = await response.json();
        if (!trials.running) return;
        check(Date.now() < deadline, `a paused experiment goes on: ${JSON.stringify(trials)}`);
        await new Promise((done) => setTimeout(done, 200));
    }
}

/** Pages follow what happens elsewhere, and logs grow, without anybody's doing anything in the browser. */
async function happensElsewhere(page) {
    await visit(page, `/experiments/${running}`);
    const head = page.locator('.head').first();
    await outside('pause');
    await head.locator('.badge', { hasText: 'paused' }).waitFor();
    await outside('resume');
    await head.locator('.badge', { hasText: 'searching' }).waitFor();
    await visit(page, `/experiments/${running}/trials/1`);
    // Read once, then followed: what is said of the next pause can only come by the stream.
    await page.waitForFunction(() => document.querySelector('.log').textContent.length > 40);
    const log = page.locator('.log');
    const before = await log.textContent();
    await outside('pause');
    await untilNothingRuns();
    await outside('resume');
    // The run that goes on says so.
    const grows = (known) => document.querySelector('.log').textContent.length > known;
    await page.waitForFunction(grows, before.length);
    check((await log.textContent()).startsWith(before.slice(0, 40)), 'the log begins anew');
}

/** What is looked at again and again must not throw readers out: the keyboard and folds stay where they are. */
async function staysPut(page) {
    await visit(page, `/experiments/${running}`);
    const fold = page.locator('details', { has: page.getByText('Manifest', { exact: true }) });
    await fold.locator('summary').click();
    await fold.getByText('hyperparameters').first().waitFor();
    await page.locator('.head').first().getByRole('button', { name: 'Pause' }).focus();
    for (let look = 0; look < 3; look += 1) {
        const answered = page.waitForResponse((one) => one.url().includes(`/experiments/${running}/timeline`));
        await page.evaluate(() => document.dispatchEvent(new CustomEvent('look')));
        await answered;
    }
    await ready(page);
    check(await fold.evaluate((one) => one.open), 'a fold closes when the page looks again');
    const text = await page.evaluate(() => document.activeElement.textContent);
    check(text === 'Pause', `the keyboard is at "${text.slice(0, 60)}" when the page has looked again`);
}

/** What a dialog asks is answered with the keyboard alone. */
async function answersByKeyboard(page) {
    await visit(page, `/experiments/${running}`);
    const head = page.locator('.head').first();
    await head.getByRole('button', { name: 'Pause' }).focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    const yes = dialog.getByRole('button', { name: 'Pause', exact: true });
    const isThere = () => yes.evaluate((one) => one === document.activeElement);
    for (let stop = 0; stop < 10 && !(await isThere()); stop += 1) await page.keyboard.press('Tab');
    check(await isThere(), 'Tab does not reach the answer');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await head.locator('.badge', { hasText: 'paused' }).waitFor();
    await outside('resume');
    await head.locator('.badge', { hasText: 'searching' }).waitFor();
}

async function actOnTrial(page) {
    await visit(page, `/experiments/${running}/trials/1`);
    const head = page.locator('.head').first();
    await head.getByRole('button', { name: 'Cancel' }).click();
    await answer(page, 'Cancel');
    await head.locator('.badge', { hasText: 'canceled' }).waitFor();
    const text = await visit(page, '/cluster');
    check(text.includes('Why things wait') && text.includes(running), text);
    await accessible(page, '/cluster');
    await shot(page, 'cluster');
}

async function byKeyboard(page) {
    await visit(page, '/');
    await page.evaluate(() => document.activeElement?.blur());
    await page.keyboard.press('Tab');
    check(
        (await page.evaluate(() => document.activeElement.className)) === 'skip',
        'the first stop is not the way past the bar',
    );
    await page.keyboard.press('Enter');
    check(
        (await page.evaluate(() => document.activeElement.id)) === 'main',
        'the content does not get the focus',
    );
    await page.getByRole('link', { name: finished }).focus();
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/experiments/${finished}`);
    await ready(page);
}

async function onPhone(browser) {
    const { context, page, complaints } = await openWindow(browser, origin, {
        viewport: { width: 390, height: 844 },
        colorScheme: 'dark',
        isMobile: true,
        hasTouch: true,
    });
    for (const [path, name] of [
        ['/', 'list'],
        [`/experiments/${finished}`, 'experiment'],
        [`/experiments/${finished}/trials/1`, 'trial'],
        ['/cluster', 'cluster'],
    ]) {
        await visit(page, path);
        const wide = await page.evaluate(
            () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        check(wide <= 0, `${path} is ${wide} pixels wider than a phone`);
        await shot(page, `phone-${name}`);
    }
    check(
        (await page.evaluate(() => document.documentElement.dataset.theme)) === 'dark',
        'not dark on a dark system',
    );
    await page.getByLabel('Theme').selectOption('light');
    check(
        (await page.evaluate(() => document.documentElement.dataset.theme)) === 'light',
        'the switch does nothing',
    );
    quiet(complaints);
    await context.close();
}

await withBrowser(async (browser) => {
    const { page, complaints } = await openWindow(browser, origin);
    await lookAtFinished(page);
    await byKeyboard(page);
    await staysPut(page);
    await happensElsewhere(page);
    await answersByKeyboard(page);
    quiet(complaints);
    await act(page);
    await actOnTrial(page);
    // The wrong change was refused, as it should be, and that was all.
    const wrong = complaints.filter((text) => !text.includes('/fork') && !text.includes('400 (Bad Request)'));
    quiet(wrong);
    await onPhone(browser);
});
console.log('all pages seen');
