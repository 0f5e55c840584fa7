// SPDX-License-Identifier: Apache-2.0
// Starts a proxy that comes as a library of node's, as its own manual says, on the port in
// $KODA_PROXY_PORT:
//
//     NODE_PATH=.../node_modules node proxy.js anyproxy | http-mitm-proxy | proxy-chain
'use strict';

const port = Number(process.env.KODA_PROXY_PORT);

const start = {
  'anyproxy': (library) => {
    const options = { port, webInterface: { enable: false }, silent: false };
    new library.ProxyServer(options).start();
  },
  'http-mitm-proxy': (library) => {
    const proxy = new library.Proxy();
    proxy.onError((_context, error) => console.error(error));
    proxy.onConnect((request, _socket, _head, next) => {
      console.error('CONNECT', request.url);
      next();
    });
    proxy.onRequest((context, next) => {
      console.error(context.clientToProxyRequest.headers.host);
      next();
    });
    proxy.listen({ host: '127.0.0.1', port, sslCaDir: 'ca' });
  },
  'proxy-chain': (library) => {
    const server = new library.Server({ host: '127.0.0.1', port, verbose: true });
    server.listen();
  },
};

const name = process.argv[2];
start[name](require(name));
