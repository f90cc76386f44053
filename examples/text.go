// Writes text from Go with the C sources of a model, by cgo:
//
//	steprnn package BUNDLE --as c --target arduino --out c
//	cp examples/text.go c/src
//	cd c/src && GO111MODULE=off go build -o text
//	./text PROMPT LENGTH [SEED [TEMPERATURE]]
//
// cgo admits no -ffp-contract=off, which the sources of that target have in themselves. A seed gives the text
// that it gives in Python. Without one it is greedy.
package main

// #cgo CFLAGS: -O2
// #include <stdlib.h>
// #include "model.h"
// #include "steprnn.h"
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

func checked(code C.int) {
	if code != 0 {
		fail(C.GoString(C.steprnn_error(code)))
	}
}

func fail(words string) {
	fmt.Fprintln(os.Stderr, words)
	os.Exit(1)
}

// Memory that C owns and zeroes, so that Go does not move it.
func room(bytes C.size_t) unsafe.Pointer { return C.calloc(bytes/8+1, 8) }

func main() {
	if len(os.Args) < 3 {
		fail("usage: text PROMPT LENGTH [SEED [TEMPERATURE]]")
	}
	length, err := strconv.ParseUint(os.Args[2], 10, 31)
	if err != nil {
		fail("LENGTH is no number")
	}
	settings := C.steprnn_settings{top_p: 1, repeat_penalty: 1}
	var seed uint64
	if len(os.Args) > 3 {
		settings.temperature = 1
		if seed, err = strconv.ParseUint(os.Args[3], 10, 64); err != nil {
			fail("SEED is no number")
		}
	}
	if len(os.Args) > 4 {
		number, err := strconv.ParseFloat(os.Args[4], 64)
		if err != nil {
			fail("TEMPERATURE is no number")
		}
		settings.temperature = C.double(number)
	}
	program, bytes := unsafe.Pointer(&C.model_program), C.size_t(unsafe.Sizeof(C.model_program))
	stream := (*C.steprnn)(room(C.steprnn_size()))
	need := C.steprnn_arena(program, bytes)
	checked(C.steprnn_open(stream, program, bytes, room(need), need))

	sampler := (*C.steprnn_sampler)(room(C.steprnn_sampler_size()))
	need = C.steprnn_sampler_bytes(C.MODEL_TOKENS, 0)
	checked(C.steprnn_sampler_open(sampler, &settings, C.uint64_t(seed), C.MODEL_TOKENS, room(need), need))

	for rest := os.Args[1]; rest != ""; {
		found := -1
		for i, word := range C.model_vocabulary {
			if strings.HasPrefix(rest, C.GoString(word)) {
				found = i
			}
		}
		if found < 0 {
			fail(rest + " is not in the vocabulary")
		}
		token := C.uint32_t(found)
		checked(C.steprnn_read(stream, &token, 1))
		rest = rest[len(C.GoString(C.model_vocabulary[found])):]
	}

	tokens := (*C.uint32_t)(room(C.size_t(4*length + 8)))
	at := (**C.uint32_t)(room(8))
	*at = tokens
	write := C.steprnn_write(C.steprnn_keep) // keeps the tokens in a row
	checked(C.steprnn_generate(stream, sampler, C.size_t(length), write, unsafe.Pointer(at)))
	text := os.Args[1]
	for _, token := range unsafe.Slice(tokens, length) {
		text += C.GoString(C.model_vocabulary[token])
	}
	fmt.Println(text)
}
