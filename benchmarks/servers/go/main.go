// A small server of Go's net/http on the listener that it is given as descriptor 3. The same source is compiled for WASI
// and for this machine.
package main

import (
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	panic(http.Serve(listener, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		io.WriteString(response, "hello\n")
	})))
}
