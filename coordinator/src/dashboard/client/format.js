// Numbers and times for people.

/**
 * Four significant digits, without needless zeros, below `least` as powers of ten; `-` for what is not there. Words of
 * hyperparameters stay as they are.
 */
function digits(value, least) {
    if (value === null || value === undefined || Number.isNaN(value)) return '-';
    if (typeof value === 'string') return value;
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e7) return String(value);
    if (size >= 1e5 || size < least)
        return value
            .toExponential(2)
            .replace(/\.?0+e/, 'e')
            .replace('e+', 'e');
    return String(Number(value.toPrecision(4)));
}

/** A number for people. */
export function number(value) {
    return digits(value, 1e-3);
}

/** A number along an axis of equal factors, where powers of ten look like each other. */
export function power(value) {
    return digits(value, 0.1);
}

/** A score or a loss: four digits behind the point, so that columns can be compared, where that says enough. */
export function score(value) {
    const isPlain = Number.isFinite(value) && (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 100));
    return isPlain ? value.toFixed(4) : number(value);
}

/** A count and its noun, `1 trial` or `2 trials`. */
export function counted(count, noun) {
    return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

export function whole(value) {
    return value === null || value === undefined ? '-' : value.toLocaleString('en-US');
}

export function percent(share) {
    return share === null || share === undefined ? '-' : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** Seconds as people say them. */
export function duration(seconds) {
    if (seconds === null || seconds === undefined) return '-';
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    if (whole < 120) return `${whole} s`;
    if (whole < 7200) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    const minutes = Math.round(seconds / 60);
    if (seconds < 172800) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    return `${(seconds / 86400).toFixed(1)} days`;
}

export function bytes(count, digits = 3) {
    if (count === null || count === undefined) return '-';
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    let value = count;
    let unit = 0;
    while (value >= 1000 && unit < units.length - 1) {
        value /= 1000;
        unit += 1;
    }
    return `${unit === 0 ? value : value.toPrecision(digits)} ${units[unit]}`;
}

/** Memory as it is sold, in powers of 1024. */
export function binary(count) {
    const gibibytes = count / 2 ** 30;
    if (gibibytes < 1) return `${Math.round(count / 2 ** 20)} MiB`;
    return `${Number(gibibytes.toFixed(gibibytes < 100 ? 1 : 0))} GiB`;
}

/** A moment, with the date if it is not today's. */
export function moment(milliseconds) {
    if (milliseconds === null || milliseconds === undefined) return '-';
    const at = new Date(milliseconds);
    const time = at.toLocaleTimeString('en-GB');
    const isToday = at.toDateString() === new Date().toDateString();
    return isToday ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

function two(value) {
    return String(value).padStart(2, '0');
}

export function ago(milliseconds, now) {
    return `${duration(Math.max(0, now - milliseconds) / 1000)} ago`;
}

/** Words that are written in capitals. */
const CAPITALS = /\b(auc|cpu|f1|gpu|mcc)\b/g;

/** Words of the code for people: `learning_rate` is `learning rate`, `macro_f1` is `macro F1`. */
export function words(name) {
    return name.replaceAll('_', ' ').replaceAll(CAPITALS, (word) => word.toUpperCase());
}

/** The value of a hyperparameter among others of it: all of a column are written the same way. */
export function setting(parameter, value) {
    if (!Number.isFinite(value) || Number.isInteger(value)) return number(value);
    if (parameter.log) return parameter.min < 1e-2 ? value.toExponential(2) : number(value);
    return score(value);
}

/** What was measured, and in what; a name that says so already says it once. */
export function withUnit(name, unit) {
    if (!unit || unit === '1' || name.endsWith('_per_second')) return words(name);
    return `${words(name.replace(/_bytes$/, ''))} (${unit})`;
}
