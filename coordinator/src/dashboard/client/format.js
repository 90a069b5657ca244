// Numbers and times for people.

/** Four significant digits, without needless zeros; `-` for what is not there. */
export function number(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return '-';
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e7) return String(value);
    if (size >= 1e5 || size < 1e-3)
        return value
            .toExponential(2)
            .replace(/\.?0+e/, 'e')
            .replace('e+', 'e');
    return String(Number(value.toPrecision(4)));
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
    if (seconds < 120) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
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

/** Words of the code for people: `learning_rate` is `learning rate`. */
export function words(name) {
    return name.replaceAll('_', ' ');
}

export function withUnit(name, unit) {
    return unit && unit !== '1' ? `${words(name)} (${unit})` : words(name);
}
