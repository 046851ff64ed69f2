//! The derive macro of `size-of`: everything has the trait already.

use proc_macro::TokenStream;

/// Derives nothing.
#[proc_macro_derive(SizeOf, attributes(size_of))]
pub fn size_of(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
