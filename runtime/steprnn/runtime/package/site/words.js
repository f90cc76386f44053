// What the page says, in English and Chinese. An error is said by its code.

const number = { en: new Intl.NumberFormat("en"), zh: new Intl.NumberFormat("zh") };
const size = (bytes) => (bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1);

export const WORDS = {
  en: {
    html: "en",
    other: "中文",
    title: "You begin, it goes on",
    lede: "A small recurrent model that writes one character after the other, in this page. What you type stays here.",
    prompt: "How it begins",
    write: "Write",
    stop: "Stop",
    temperature: "Temperature",
    warmth: "0: always the likeliest",
    topK: "Top-k",
    topKNote: "0: no limit",
    seed: "Seed",
    seedNote: "empty: always new",
    length: "Characters",
    pace: "at reading pace",
    text: "The text",
    skip: "Leave them out and write",
    keep: "keep this seed",
    loading: "Loading",
    progress: (bytes, of) => `Loading the model: ${size(bytes)} of ${size(of)} MB`,
    starting: "Starting the engine",
    ready: (characters) => `Ready. It knows ${number.en.format(characters)} characters.`,
    readyForAny: "Ready. It reads text of any script, byte by byte.",
    figures: (count, speed, pace, seed) =>
      `${number.en.format(count)} characters · ${pace ? `shown at ${number.en.format(pace)} a second, written at ` : ""}` +
      `${speed ? `${number.en.format(speed)} a second` : "–"} · ${seed}`,
    seedIs: (seed) => `seed ${seed}`,
    greedy: "no seed at temperature 0",
    done: (count) => `Done: ${count} characters`,
    stopped: (count) => `Stopped after ${count} characters`,
    about: (variant, bytes, engine) =>
      `${variant} weights, ${size(bytes)} MB, run by ${engine} on this device. Made with steprnn.`,
    errors: {
      unknown: ({ characters }) => `The model does not know ${listed(characters, ", ")}.`,
      "prompt-unknown": () => "The model knows none of these characters. Try another beginning.",
      "prompt-empty": () => "Type at least one character to begin with.",
      missing: ({ file }) => `The file ${file} is missing here. The folder has to be copied whole.`,
      size: ({ file, got, expected }) =>
        `The file ${file} is broken: it has ${number.en.format(got)} bytes and should have ${number.en.format(expected)}. Copy the folder again.`,
      altered: ({ file }) => `The file ${file} is broken: it is not the one that was packaged. Copy the folder again.`,
      json: ({ file }) => `The file ${file} cannot be read. Copy the folder again.`,
      format: ({ file }) => `The file ${file} is not what it should be. Copy the folder again.`,
      damaged: ({ file }) => `The file ${file} is damaged. Export and package the model again.`,
      version: ({ file, got }) => `The file ${file} is of a newer version, ${got}. Package the page again.`,
      outside: ({ file }) => `The model names a file outside its folder (${file}). Do not trust it.`,
      network: ({ file }) => `The file ${file} did not arrive. Check the connection and load the page again.`,
      "no-wasm": () => "This browser has no WebAssembly, or it is switched off. Allow it, or use another browser.",
      "engine-missing": ({ file }) => `The file ${file} of the engine is missing. The folder has to be copied whole.`,
      wasm: ({ file }) => `The engine (${file}) does not start in this browser. Copy the folder again, or update the browser.`,
      refused: ({ said }) => `The engine does not take the model: ${said}`,
      variant: ({ variant }) => `The model has no ${variant} weights in ONNX. Package it again.`,
      "not-finite": ({ steps }) => `The model gave what is no number after ${number.en.format(steps)} steps. It is damaged.`,
      "no-vocabulary": () => "The model has no characters to write: it is not a model of text.",
    },
    other_error: (message) => `Something went wrong: ${message}`,
    cannot: "The model cannot be loaded. ",
  },
  zh: {
    html: "zh-Hans",
    other: "English",
    title: "你起头，它接着写",
    lede: "一个小小的循环神经网络，在这一页里一个字一个字地写。你输入的内容不会离开这里。",
    prompt: "开头",
    write: "写",
    stop: "停",
    temperature: "温度",
    warmth: "0：总取最可能的字",
    topK: "Top-k",
    topKNote: "0：不限",
    seed: "种子",
    seedNote: "留空：每次换一个",
    length: "字数",
    pace: "按阅读速度显示",
    text: "文字",
    skip: "略去这些字再写",
    keep: "保留这个种子",
    loading: "正在载入",
    progress: (bytes, of) => `正在载入模型：${size(bytes)} / ${size(of)} MB`,
    starting: "正在启动引擎",
    ready: (characters) => `准备好了。它认识 ${number.zh.format(characters)} 个字符。`,
    readyForAny: "准备好了。它按字节读写，任何文字都行。",
    figures: (count, speed, pace, seed) =>
      `${number.zh.format(count)} 字 · ${pace ? `以每秒 ${number.zh.format(pace)} 字显示，实际写得出` : ""}` +
      `${speed ? `每秒 ${number.zh.format(speed)} 字` : "–"} · ${seed}`,
    seedIs: (seed) => `种子 ${seed}`,
    greedy: "温度为 0，不用种子",
    done: (count) => `写完了：${count} 字`,
    stopped: (count) => `已停下，写了 ${count} 字`,
    about: (variant, bytes, engine) =>
      `${variant} 权重，${size(bytes)} MB，由 ${engine} 在本机运行。用 steprnn 制作。`,
    errors: {
      unknown: ({ characters }) => `模型不认识${listed(characters, "、")}。`,
      "prompt-unknown": () => "这些字模型一个也不认识，换一个开头吧。",
      "prompt-empty": () => "请至少输入一个字作开头。",
      missing: ({ file }) => `缺少文件 ${file}，请复制整个文件夹。`,
      size: ({ file, got, expected }) =>
        `文件 ${file} 已损坏：应有 ${number.zh.format(expected)} 字节，实际 ${number.zh.format(got)} 字节。请重新复制文件夹。`,
      altered: ({ file }) => `文件 ${file} 已损坏：与打包时的内容不同。请重新复制文件夹。`,
      json: ({ file }) => `文件 ${file} 无法读取，请重新复制文件夹。`,
      format: ({ file }) => `文件 ${file} 的内容不对，请重新复制文件夹。`,
      damaged: ({ file }) => `文件 ${file} 已损坏，请重新导出并打包模型。`,
      version: ({ file, got }) => `文件 ${file} 的版本（${got}）比本页新，请重新打包网页。`,
      outside: ({ file }) => `模型提到了文件夹之外的文件（${file}），不可信任。`,
      network: ({ file }) => `文件 ${file} 没有传到，请检查网络后刷新本页。`,
      "no-wasm": () => "这个浏览器没有 WebAssembly，或者它被关闭了。请打开它，或换一个浏览器。",
      "engine-missing": ({ file }) => `缺少引擎文件 ${file}，请复制整个文件夹。`,
      wasm: ({ file }) => `引擎（${file}）无法在这个浏览器里启动。请重新复制文件夹，或更新浏览器。`,
      refused: ({ said }) => `引擎不接受这个模型：${said}`,
      variant: ({ variant }) => `模型没有 ONNX 格式的 ${variant} 权重，请重新打包。`,
      "not-finite": ({ steps }) => `模型在第 ${number.zh.format(steps)} 步算出的不是数：它已损坏。`,
      "no-vocabulary": () => "这个模型没有字表：它不是写字的模型。",
    },
    other_error: (message) => `出错了：${message}`,
    cannot: "模型无法载入。",
  },
};

/** What went wrong, in words. */
export function explain(words, error) {
  const say = words.errors[error?.code];
  return say ? say(error.details) : words.other_error(error?.message ?? String(error));
}

function listed(characters, between) {
  const named = characters.slice(0, 8).map((c) => `“${c}”`).join(between);
  return characters.length > 8 ? `${named} …` : named;
}
