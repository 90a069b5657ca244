// Somebody shows a token, looks, and leaves. Variables: MUSTER_URL, MUSTER_SHOWN (the token, of the scope read).

import { audit, walk } from './access.mjs';
import { check, openWindow, quiet, ready, withBrowser } from './browser.mjs';

const { MUSTER_URL: origin, MUSTER_SHOWN: token, MUSTER_PICTURES: pictures } = process.env;

await withBrowser(async (browser) => {
    const { page, complaints } = await openWindow(browser, origin);
    await page.goto(`${origin}/cluster`);
    await page.waitForURL('**/login?next=%2Fcluster');
    if (pictures) await page.screenshot({ path: `${pictures}/login.png` });
    await audit(page, 'login');
    await walk(page, 'login');
    await page.getByLabel('Token').fill('muster_00000000_wrong');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('alert').waitFor();
    check(
        (await page.innerText('main')).includes('no token of this coordinator'),
        'no word of what is wrong',
    );
    await page.emulateMedia({ colorScheme: 'dark' });
    await audit(page, 'a refused login by night');
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.waitForURL('**/cluster');
    await ready(page);
    check((await page.innerText('.bar')).includes('rita (looks only)'), 'it is not said who looks');
    check(!(await page.evaluate(() => document.cookie)).includes('muster-'), 'a script sees the cookie');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.waitForURL('**/login?why=left');
    await page.goto(`${origin}/`);
    await page.waitForURL('**/login');
    // The wrong token was refused, and that was all.
    quiet(complaints.filter((text) => !text.includes('/login') && !text.includes('401 (Unauthorized)')));
});
console.log('in and out');
