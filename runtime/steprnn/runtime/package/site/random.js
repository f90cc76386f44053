// Python's random.Random(seed).random(): MT19937, seeded by init_by_array.

const N = 624;
const M = 397;

/** The random numbers of one stream of text; equal seeds give equal numbers, here and in Python. */
export class Random {
  #state = new Uint32Array(N);
  #index = N;

  /** @param {number | bigint} seed a whole number, at least 0 and of any size */
  constructor(seed) {
    const state = this.#state;
    const key = words(BigInt(seed));
    state[0] = 19650218;
    for (let i = 1; i < N; i++) {
      state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    }
    let i = 1;
    for (let k = 0; k < Math.max(N, key.length); k++) {
      const j = k % key.length;
      state[i] = (state[i] ^ Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), 1664525)) + key[j] + j;
      if (++i === N) {
        state[0] = state[N - 1];
        i = 1;
      }
    }
    for (let k = 0; k < N - 1; k++) {
      state[i] = (state[i] ^ Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), 1566083941)) - i;
      if (++i === N) {
        state[0] = state[N - 1];
        i = 1;
      }
    }
    state[0] = 0x80000000;
  }

  /** The next number, 0 or more and below 1, with 53 bits. */
  next() {
    const a = this.#word() >>> 5;
    const b = this.#word() >>> 6;
    return (a * 67108864 + b) / 9007199254740992;
  }

  #word() {
    if (this.#index === N) this.#twist();
    let y = this.#state[this.#index++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #twist() {
    const state = this.#state;
    for (let i = 0; i < N; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
      state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#index = 0;
  }
}

/** A seed as 32-bit words, lowest first; one word for 0. */
function words(seed) {
  const key = [];
  do {
    key.push(Number(seed & 0xffffffffn));
    seed >>= 32n;
  } while (seed);
  return key;
}
