//! The fuzz targets' entry functions; see `entries`.
pub mod entries;
