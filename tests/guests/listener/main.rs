//! A server of Rust's standard library, on the listener that it is passed as a descriptor.
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::wasi::io::FromRawFd;

fn main() {
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    for connection in listener.incoming() {
        let mut connection = connection.expect("a connection");
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") {
            match connection.read(&mut piece) {
                Ok(size) if size > 0 => request.extend_from_slice(&piece[..size]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&request);
        let path = text.split(' ').nth(1).unwrap_or("");
        let body = format!("Hello from Rust: {} 0\n", path);
        let _ = write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}", body.len(), body);
    }
}
