// Ending a text before a stop string.

/**
 * The pieces up to the first of the stop strings, which is left out. Holds back what may turn out to be the
 * beginning of one.
 * @param {AsyncIterable<string>} pieces
 * @param {string[]} stops
 */
export async function* until(pieces, stops) {
  let held = "";
  let end = -1; // where the first stop string found in `held` begins
  for await (const piece of pieces) {
    held += piece;
    end = first(held, stops);
    const certain = held.length - beginning(held, stops);
    if (end >= 0 && end <= certain) break; // else one that began before it may still be completed
    if (certain) {
      yield held.slice(0, certain);
      held = held.slice(certain);
      if (end >= 0) end -= certain;
    }
  }
  const rest = end >= 0 ? held.slice(0, end) : held;
  if (rest) yield rest;
}

function first(text, stops) {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length ? Math.min(...found) : -1;
}

/** How much of the end of a text may be the beginning of a stop string. */
function beginning(text, stops) {
  let most = 0;
  for (const stop of stops) {
    for (let n = 1; n < stop.length; n++) if (text.endsWith(stop.slice(0, n))) most = Math.max(most, n);
  }
  return most;
}
