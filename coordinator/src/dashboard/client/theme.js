// Light or dark: as the system says, or as the reader has chosen.

const KEY = 'muster-theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set();

function chosen() {
    try {
        return localStorage.getItem(KEY) ?? 'auto';
    } catch {
        return 'auto';
    }
}

export function isDark() {
    const theme = chosen();
    return theme === 'dark' || (theme === 'auto' && system.matches);
}

function apply() {
    document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
    listeners.forEach((listener) => listener());
}

/** Calls `listener` after every change; what it returns takes it back. */
export function onTheme(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
}

/** A colour of the style sheet. */
export function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function bindTheme(select) {
    select.value = chosen();
    select.addEventListener('change', () => {
        try {
            localStorage.setItem(KEY, select.value);
        } catch {
            // Without storage the choice lasts as long as the page.
        }
        apply();
    });
}

system.addEventListener('change', apply);
apply();
