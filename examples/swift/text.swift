// Writes text from Swift with the C sources of `steprnn package BUNDLE --as c --out c`:
//
//     cc -O2 -ffp-contract=off -c c/steprnn.c c/model.c
//     swiftc -O -I c -import-objc-header examples/swift/model_in_swift.h examples/swift/text.swift steprnn.o model.o
//     ./text PROMPT LENGTH [SEED [TEMPERATURE]]
//
// A seed gives the text that it gives in Python. Without one it is greedy.

import Foundation

struct Failure: Error {
    let words: String
}

func checked(_ error: CInt) throws {
    if error != 0 {
        throw Failure(words: String(cString: steprnn_error(error)))
    }
}

/// Memory that is aligned as C wants it.
func room(_ bytes: Int) -> UnsafeMutableRawPointer {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes + 1, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes + 1)
    return memory
}

final class Text {
    var written: String

    init(_ prompt: String) {
        written = prompt
    }
}

func text(_ prompt: String, _ length: Int, _ seed: UInt64, _ temperature: Double) throws -> String {
    let program = program_of_model()!
    let bytes = Int(program[2])
    let size = steprnn_arena(program, bytes)
    var stream = steprnn()
    let arena = room(size)
    defer { arena.deallocate() }
    try checked(steprnn_open(&stream, program, bytes, arena, size))
    let tokens = UInt32(steprnn_output_words(&stream))
    var settings = steprnn_settings(
        temperature: temperature, top_p: 1, min_p: 0, repeat_penalty: 1, top_k: 0, repeat_last_n: 0)
    let needed = steprnn_sampler_bytes(tokens, 0)
    let memory = room(needed)
    defer { memory.deallocate() }
    var sampler = steprnn_sampler()
    try checked(steprnn_sampler_open(&sampler, &settings, seed, tokens, memory, needed))
    for character in prompt {
        let found = (0..<tokens).first { String(cString: word_of_model($0)) == String(character) }
        guard var token = found else {
            throw Failure(words: "\(character) is not in the vocabulary")
        }
        try checked(steprnn_read(&stream, &token, 1))
    }
    let made = Text(prompt)
    let keep: steprnn_write = { context, token in
        let made = Unmanaged<Text>.fromOpaque(context!).takeUnretainedValue()
        made.written += String(cString: word_of_model(token))
        return 0
    }
    try checked(steprnn_generate(&stream, &sampler, length, keep, Unmanaged.passUnretained(made).toOpaque()))
    return made.written
}

let given = CommandLine.arguments
guard given.count > 2, let length = Int(given[2]) else {
    FileHandle.standardError.write(Data("usage: text PROMPT LENGTH [SEED [TEMPERATURE]]\n".utf8))
    exit(2)
}
do {
    let seed = given.count > 3 ? UInt64(given[3]) ?? 0 : 0
    let temperature = given.count > 4 ? Double(given[4]) ?? 1 : (given.count > 3 ? 1 : 0)
    print(try text(given[1], length, seed, temperature))
} catch let failure as Failure {
    FileHandle.standardError.write(Data("\(failure.words)\n".utf8))
    exit(1)
}
