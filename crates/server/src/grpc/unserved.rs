//! Services of etcd's API that this version does not have: refused by name.
//!
//! Why: the library's own answer is a bare "unimplemented", which a person takes for a fault of the
//! network or of the client.

use tonic::{
    body::Body,
    codegen::http::{Response, Uri},
    service::Routes,
};

/// Refuses by name whatever `routes` do not serve.
pub(super) fn refuse_by_name(routes: Routes) -> Routes {
    let refuse = |uri: Uri| std::future::ready(refuse(uri.path()));
    routes.into_axum_router().fallback(refuse).into()
}

fn refuse(path: &str) -> Response<Body> {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let name = service.rsplit('.').next().unwrap_or(service);
    let text = format!("kvraft: the {name} service is not served by this version ({method})");
    tonic::Status::unimplemented(text).into_http()
}
