//! A component that serves HTTP, in Rust: it greets whoever asks, and sends back what is sent to it.
//!
//! The interface's functions are imported by hand, by the canonical ABI, as wit-bindgen and cargo-component write them
//! where they are to be had. Built for wasm32-unknown-unknown, it needs nothing of WASI but what ../http.wit has.
#![crate_type = "cdylib"]

use std::alloc::{alloc, realloc, Layout};

#[link(wasm_import_module = "wasi:http/types@0.2.0")]
extern "C" {
    #[link_name = "[constructor]fields"]
    fn new_fields() -> i32;
    #[link_name = "[constructor]outgoing-response"]
    fn new_response(fields: i32) -> i32;
    #[link_name = "[method]outgoing-response.body"]
    fn response_body(response: i32, found: *mut i32);
    #[link_name = "[static]response-outparam.set"]
    fn set_response(out: i32, failed: i32, response: i32, b: i32, c: i64, d: i32, e: i32, f: i32, g: i32);
    #[link_name = "[method]outgoing-body.write"]
    fn body_write(body: i32, found: *mut i32);
    #[link_name = "[static]outgoing-body.finish"]
    fn finish_body(body: i32, some: i32, trailers: i32, found: *mut i32);
    #[link_name = "[method]incoming-request.method"]
    fn request_method(request: i32, found: *mut i32);
    #[link_name = "[method]incoming-request.path-with-query"]
    fn request_path(request: i32, found: *mut i32);
    #[link_name = "[method]incoming-request.consume"]
    fn consume(request: i32, found: *mut i32);
    #[link_name = "[method]incoming-body.stream"]
    fn body_stream(body: i32, found: *mut i32);
}

#[link(wasm_import_module = "wasi:io/streams@0.2.0")]
extern "C" {
    #[link_name = "[method]input-stream.blocking-read"]
    fn blocking_read(stream: i32, size: i64, found: *mut i32);
    #[link_name = "[method]output-stream.blocking-write-and-flush"]
    fn write_and_flush(stream: i32, data: *const u8, size: usize, found: *mut i32);
    #[link_name = "[resource-drop]input-stream"]
    fn drop_input(stream: i32);
    #[link_name = "[resource-drop]output-stream"]
    fn drop_output(stream: i32);
}

const POST: i32 = 2;
const LARGEST_WRITE: usize = 4096;

/// Room for what the host gives.
#[export_name = "cabi_realloc"]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return align as *mut u8;
    }
    if old_size == 0 {
        return alloc(Layout::from_size_align_unchecked(size, align));
    }
    realloc(old, Layout::from_size_align_unchecked(old_size, align), size)
}

/// The bytes that the host has put at the place that two words say.
unsafe fn bytes(place: *const i32) -> Vec<u8> {
    let (data, size) = (*place as *mut u8, *place.add(1) as usize);
    if size == 0 {
        return Vec::new();
    }
    Vec::from_raw_parts(data, size, size)
}

#[export_name = "wasi:http/incoming-handler@0.2.0#handle"]
pub unsafe extern "C" fn handle(request: i32, out: i32) {
    let mut room = [0i32; 16];
    let found = room.as_mut_ptr();
    let response = new_response(new_fields());
    response_body(response, found);
    let body = *found.add(1);
    set_response(out, 0, response, 0, 0, 0, 0, 0, 0);
    body_write(body, found);
    let stream = *found.add(1);
    request_method(request, found);
    if *found & 0xff == POST {
        send_back(request, stream, found);
    } else {
        request_path(request, found);
        let path = if *found & 0xff != 0 { bytes(found.add(1)) } else { b"/".to_vec() };
        let text = format!("Hello from Rust: {}\n", String::from_utf8_lossy(&path));
        write(stream, text.as_bytes(), found);
    }
    drop_output(stream);
    finish_body(body, 0, 0, found);
}

unsafe fn send_back(request: i32, stream: i32, found: *mut i32) {
    consume(request, found);
    body_stream(*found.add(1), found);
    let source = *found.add(1);
    loop {
        blocking_read(source, 65536, found);
        if *found & 0xff != 0 {
            break;
        }
        write(stream, &bytes(found.add(1)), found);
    }
    drop_input(source);
}

unsafe fn write(stream: i32, data: &[u8], found: *mut i32) {
    for part in data.chunks(LARGEST_WRITE) {
        write_and_flush(stream, part.as_ptr(), part.len(), found);
    }
}
