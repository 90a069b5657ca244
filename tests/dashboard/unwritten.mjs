// An experiment whose search is over and whose model could not be written: the page offers to write it after all, does
// nothing without a yes, and follows until it is there. Variables: MUSTER_URL, MUSTER_FAILED.

import { audit } from './access.mjs';
import { answer, check, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_FAILED: failed, MUSTER_PICTURES: pictures } = process.env;

async function state() {
    const options = { signal: AbortSignal.timeout(30000) };
    const response = await fetch(`${origin}/api/v1/experiments/${failed}`, options);
    return (await response.json()).state;
}

await withBrowser(async (browser) => {
    const { page, complaints } = await openWindow(browser, origin);
    await page.goto(`${origin}/experiments/${failed}`);
    await ready(page);
    const head = page.locator('.head').first();
    await head.locator('.badge', { hasText: 'failed' }).waitFor();
    check((await head.innerText()).includes('writing the best model'), 'it is not said what failed');
    const buttons = async () => (await head.getByRole('button').allTextContents()).join(', ');
    check((await buttons()) === 'Resume, Fork', `buttons: ${await buttons()}`);
    await audit(page, 'an experiment without its model');
    if (pictures) await page.screenshot({ path: `${pictures}/unwritten.png` });

    await head.getByRole('button', { name: 'Resume' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('The model of its best trial is scored and written again.').waitFor();
    await dialog.getByRole('button', { name: 'Leave it' }).click();
    await dialog.waitFor({ state: 'detached' });
    check((await state()) === 'failed', 'resumed without a yes');

    await head.getByRole('button', { name: 'Resume' }).click();
    await answer(page, 'Resume');
    // Seen without a reload.
    await head.locator('.badge', { hasText: 'completed' }).waitFor();
    await head.getByRole('button', { name: 'Resume' }).waitFor({ state: 'detached' });
    check((await buttons()) === 'Fork', `buttons: ${await buttons()}`);
    // Where it lies; the exact words, as decisions speak of it too.
    await page.getByText('Best model', { exact: true }).waitFor();
    quiet(complaints);
});
console.log('written after all');
