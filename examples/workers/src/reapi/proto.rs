//! The messages and services of the protocols, compiled from the folder `proto`.

pub use google::bytestream;
pub use google::devtools::remoteworkers::v1test2 as workers;
pub use google::longrunning;
pub use google::rpc;

pub use build::bazel::remote::execution::v2 as execution;

mod build {
    pub mod bazel {
        pub mod remote {
            pub mod execution {
                pub mod v2 {
                    tonic::include_proto!("build.bazel.remote.execution.v2");
                }
            }
        }
    }
}

mod google {
    pub mod bytestream {
        tonic::include_proto!("google.bytestream");
    }

    pub mod devtools {
        pub mod remoteworkers {
            pub mod v1test2 {
                tonic::include_proto!("google.devtools.remoteworkers.v1test2");
            }
        }
    }

    pub mod longrunning {
        tonic::include_proto!("google.longrunning");
    }

    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
