// Light or dark: as the system says, or as the reader has chosen.

const KEY = 'muster-theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set();
/** An element that nobody sees, which says what a colour of the style sheet is. */
const probe = document.createElement('span');
probe.hidden = true;
/** Colours that were asked for; asking is slow where thousands of lines are drawn. */
const known = new Map();

function chosen() {
    try {
        return localStorage.getItem(KEY) ?? 'auto';
    } catch {
        return 'auto';
    }
}

function apply() {
    const theme = chosen();
    const isDark = theme === 'dark' || (theme === 'auto' && system.matches);
    shown(isDark ? 'dark' : 'light');
}

/** Calls `listener` after every change; what it returns takes it back. */
export function onTheme(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
}

/** A colour of colours.css, as pictures want it. */
export function colour(name) {
    if (!known.has(name)) {
        if (!probe.isConnected) document.body.append(probe);
        probe.style.color = `var(--${name})`;
        known.set(name, getComputedStyle(probe).color);
    }
    return known.get(name);
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

/** Pictures are drawn in the colours of the moment. */
function shown(theme) {
    document.documentElement.dataset.theme = theme;
    known.clear();
    listeners.forEach((listener) => listener());
}

system.addEventListener('change', apply);
// Paper is white, whatever the screen was.
addEventListener('beforeprint', () => shown('light'));
addEventListener('afterprint', apply);
apply();
