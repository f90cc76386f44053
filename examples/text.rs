//! Writes text from Rust with the C sources of `steprnn package BUNDLE --as c --out c`:
//!
//!     cc -O2 -ffp-contract=off -c c/steprnn.c c/model.c
//!     rustc -O examples/text.rs -C link-arg=steprnn.o -C link-arg=model.o
//!     ./text PROMPT LENGTH [SEED [TEMPERATURE]]
//!
//! A seed gives the text that it gives in Python. Without one it is greedy.

use std::ffi::{c_char, c_int, c_void, CStr};

#[repr(C)]
struct Settings {
    temperature: f64,
    top_p: f64,
    min_p: f64,
    repeat_penalty: f64,
    top_k: u32,
    repeat_last_n: u32,
}

type Write = extern "C" fn(*mut c_void, u32) -> c_int;

extern "C" {
    static model_program: [u32; 3]; // and more: the third word has its bytes
    static model_vocabulary: *const c_char; // the first of them
    fn steprnn_size() -> usize;
    fn steprnn_sampler_size() -> usize;
    fn steprnn_arena(program: *const u32, bytes: usize) -> usize;
    fn steprnn_open(s: *mut u64, program: *const u32, bytes: usize, arena: *mut u64, size: usize) -> c_int;
    fn steprnn_error(error: c_int) -> *const c_char;
    fn steprnn_output_words(s: *const u64) -> usize;
    fn steprnn_read(s: *mut u64, tokens: *const u32, count: usize) -> c_int;
    fn steprnn_sampler_bytes(vocabulary: u32, repeat_last_n: u32) -> usize;
    fn steprnn_sampler_open(
        s: *mut u64, settings: *const Settings, seed: u64, vocabulary: u32, memory: *mut u64, bytes: usize,
    ) -> c_int;
    fn steprnn_generate(s: *mut u64, sampler: *mut u64, length: usize, write: Write, context: *mut c_void) -> c_int;
}

/// Memory that is aligned as C wants it.
fn room(bytes: usize) -> Vec<u64> {
    vec![0; bytes / 8 + 1]
}

fn checked(error: c_int) -> Result<(), String> {
    match error {
        0 => Ok(()),
        _ => Err(unsafe { CStr::from_ptr(steprnn_error(error)) }.to_string_lossy().into_owned()),
    }
}

fn word(token: u32) -> &'static str {
    let text = unsafe { CStr::from_ptr(*(&raw const model_vocabulary).add(token as usize)) };
    text.to_str().unwrap_or("")
}

extern "C" fn keep(context: *mut c_void, token: u32) -> c_int {
    unsafe { &mut *(context as *mut String) }.push_str(word(token));
    0
}

fn text(prompt: &str, length: usize, seed: u64, temperature: f64) -> Result<String, String> {
    unsafe {
        let program = (&raw const model_program) as *const u32;
        let bytes = model_program[2] as usize;
        let size = steprnn_arena(program, bytes);
        let (mut stream, mut arena) = (room(steprnn_size()), room(size));
        checked(steprnn_open(stream.as_mut_ptr(), program, bytes, arena.as_mut_ptr(), size))?;
        let tokens = steprnn_output_words(stream.as_ptr()) as u32;
        let settings =
            Settings { temperature, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, top_k: 0, repeat_last_n: 0 };
        let needed = steprnn_sampler_bytes(tokens, 0);
        let (mut sampler, mut memory) = (room(steprnn_sampler_size()), room(needed));
        checked(steprnn_sampler_open(sampler.as_mut_ptr(), &settings, seed, tokens, memory.as_mut_ptr(), needed))?;
        for character in prompt.chars() {
            let token = (0..tokens).find(|&token| word(token).chars().eq([character]));
            let token = token.ok_or(format!("{character} is not in the vocabulary"))?;
            checked(steprnn_read(stream.as_mut_ptr(), &token, 1))?;
        }
        let mut written = String::from(prompt);
        let context = (&raw mut written) as *mut c_void;
        checked(steprnn_generate(stream.as_mut_ptr(), sampler.as_mut_ptr(), length, keep, context))?;
        Ok(written)
    }
}

fn main() {
    let given: Vec<String> = std::env::args().collect();
    let length = given.get(2).and_then(|n| n.parse().ok());
    let (Some(prompt), Some(length)) = (given.get(1), length) else {
        eprintln!("usage: {} PROMPT LENGTH [SEED [TEMPERATURE]]", given[0]);
        std::process::exit(2);
    };
    let seed = given.get(3).and_then(|n| n.parse().ok()).unwrap_or(0);
    let otherwise = if given.len() > 3 { 1.0 } else { 0.0 };
    let temperature = given.get(4).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    match text(prompt, length, seed, temperature) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
