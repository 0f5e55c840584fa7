// SPDX-License-Identifier: Apache-2.0

// A CONNECT proxy as one writes it with Go's net/http, on 127.0.0.1 at the port in
// $KODA_PROXY_PORT. Names that end in `.test` are 127.0.0.1.
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
)

func dial(network, authority string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(host, ".test") {
		host = "127.0.0.1"
	}
	return net.Dial(network, net.JoinHostPort(host, port))
}

func tunnel(answer http.ResponseWriter, request *http.Request) {
	upstream, err := dial("tcp", request.Host)
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	answer.WriteHeader(http.StatusOK)
	client, _, err := answer.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	go io.Copy(upstream, client)
	io.Copy(client, upstream)
}

func main() {
	forward := &httputil.ReverseProxy{
		Director:  func(*http.Request) {},
		Transport: &http.Transport{Dial: dial},
	}
	serve := func(answer http.ResponseWriter, request *http.Request) {
		log.Println(request.Method, request.Host)
		if request.Method == http.MethodConnect {
			tunnel(answer, request)
		} else {
			forward.ServeHTTP(answer, request)
		}
	}
	address := "127.0.0.1:" + os.Getenv("KODA_PROXY_PORT")
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(serve)))
}
