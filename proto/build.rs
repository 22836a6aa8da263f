//! Compiles the .proto files with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/meridian/v1/catalog.proto", "proto/meridian/v1/meta.proto", "proto/meridian/v1/datanode.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".meridian.v1.WriteRequest.rows")
        .bytes(".meridian.v1.ScanResponse.batch")
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    Ok(())
}
