// A component that serves HTTP, in Go: it greets whoever asks, and sends back what is sent to it.
//
// The interface's functions are imported by hand, by the canonical ABI, as wit-bindgen-go writes them. Go's own
// compiler builds a module for WASI preview 1, of which the public adapter makes a component of preview 2.
package main

import "unsafe"

//go:wasmimport wasi:http/types@0.2.0 [constructor]fields
func newFields() int32

//go:wasmimport wasi:http/types@0.2.0 [constructor]outgoing-response
func newResponse(fields int32) int32

//go:wasmimport wasi:http/types@0.2.0 [method]outgoing-response.body
func responseBody(response int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [static]response-outparam.set
func setResponse(out, failed, response, b int32, c int64, d, e, f, g int32)

//go:wasmimport wasi:http/types@0.2.0 [method]outgoing-body.write
func bodyWrite(body int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [static]outgoing-body.finish
func finishBody(body, some, trailers int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [method]incoming-request.method
func requestMethod(request int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [method]incoming-request.path-with-query
func requestPath(request int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [method]incoming-request.consume
func consume(request int32, found unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [method]incoming-body.stream
func bodyStream(body int32, found unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.0 [method]input-stream.blocking-read
func blockingRead(stream int32, size int64, found unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.0 [method]output-stream.blocking-write-and-flush
func writeAndFlush(stream int32, data unsafe.Pointer, size int32, found unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.0 [resource-drop]input-stream
func dropInput(stream int32)

//go:wasmimport wasi:io/streams@0.2.0 [resource-drop]output-stream
func dropOutput(stream int32)

const (
	post         = 2
	largestWrite = 4096
)

// What the host has been given room for, so that the garbage collector leaves it.
var given [][]byte

// Its name says that it is for results of imports alone: the adapter, which needs room before Go runs, has its own.
//
//go:wasmexport cabi_import_realloc
func reallocate(old, oldSize, align, size int32) int32 {
	if size == 0 {
		return align
	}
	room := make([]byte, size+align)
	given = append(given, room)
	at := uintptr(unsafe.Pointer(&room[0]))
	return int32((at + uintptr(align) - 1) &^ (uintptr(align) - 1))
}

// The bytes that the host has put at the place that two words say.
func bytes(data, size int32) []byte {
	if size == 0 {
		return nil
	}
	found := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(uintptr(data))), size)...)
	given = nil
	return found
}

//go:wasmexport wasi:http/incoming-handler@0.2.0#handle
func handle(request, out int32) {
	var room [8]int64
	found := unsafe.Pointer(&room)
	words := (*[16]int32)(found)
	response := newResponse(newFields())
	responseBody(response, found)
	body := words[1]
	setResponse(out, 0, response, 0, 0, 0, 0, 0, 0)
	bodyWrite(body, found)
	stream := words[1]
	requestMethod(request, found)
	if words[0]&0xff == post {
		consume(request, found)
		bodyStream(words[1], found)
		source := words[1]
		for {
			blockingRead(source, 65536, found)
			if words[0]&0xff != 0 {
				break
			}
			write(stream, bytes(words[1], words[2]), found)
		}
		dropInput(source)
	} else {
		path := []byte("/")
		requestPath(request, found)
		if words[0]&0xff != 0 {
			path = bytes(words[1], words[2])
		}
		write(stream, []byte("Hello from Go: "+string(path)+"\n"), found)
	}
	dropOutput(stream)
	finishBody(body, 0, 0, found)
}

func write(stream int32, data []byte, found unsafe.Pointer) {
	for len(data) > 0 {
		part := data[:min(len(data), largestWrite)]
		writeAndFlush(stream, unsafe.Pointer(&part[0]), int32(len(part)), found)
		data = data[len(part):]
	}
}

func main() {}
