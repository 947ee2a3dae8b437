//! ChirpStack v4's gRPC services.
//!
//! One module a service. A method reads like this: who calls, what they ask for, whether they may, then the store.

mod application;
mod device;
mod device_profile;
mod gate;
mod gateway;
mod internal;
mod tenant;
mod user;

use std::sync::Arc;

use axum::middleware;
use chirpstack_api::api::{
    application_service_server::ApplicationServiceServer, device_profile_service_server::DeviceProfileServiceServer,
    device_service_server::DeviceServiceServer, gateway_service_server::GatewayServiceServer,
    internal_service_server::InternalServiceServer, tenant_service_server::TenantServiceServer,
    user_service_server::UserServiceServer,
};
use tonic::{Request, Status, service::Routes};

pub(crate) use application::check_http;
pub(crate) use gateway::STATS_INTERVAL;

use crate::{
    Api,
    auth::{Caller, NOBODY},
    error::Result,
};

/// The result of a gRPC method.
type Reply<T> = std::result::Result<tonic::Response<T>, Status>;

/// Every service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Grpc(Arc<Api>);

impl Grpc {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    /// The services as routes of an HTTP server.
    pub fn routes(&self) -> axum::Router {
        Routes::new(InternalServiceServer::new(self.clone()))
            .add_service(UserServiceServer::new(self.clone()))
            .add_service(TenantServiceServer::new(self.clone()))
            .add_service(ApplicationServiceServer::new(self.clone()))
            .add_service(DeviceProfileServiceServer::new(self.clone()))
            .add_service(GatewayServiceServer::new(self.clone()))
            .add_service(DeviceServiceServer::new(self.clone()))
            .into_axum_router()
            .route_layer(middleware::from_fn_with_state(self.0.clone(), gate::gate))
    }

    /// Who calls, whom the gate has let in, and the message.
    fn admit<T>(&self, request: Request<T>) -> Result<(Caller, T)> {
        let (_, mut extensions, message) = request.into_parts();
        Ok((extensions.remove::<Caller>().ok_or(NOBODY)?, message))
    }
}

fn reply<T>(message: T) -> Reply<T> {
    Ok(tonic::Response::new(message))
}

/// What a method that does not exist here yet answers. `method` is `/api.Service/Method`, or the like.
pub(crate) fn not_served(method: &str) -> Status {
    Status::unimplemented(format!("{method} is not served by this version of Limpet"))
}

/// Methods of a service that do nothing yet but say so. (Written as `async_trait` would expand them: it does not look
/// into macros.)
macro_rules! unserved {
    ($service:literal: $($method:ident($request:ident) -> $response:ty;)*) => { $(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: tonic::Request<chirpstack_api::api::$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = crate::grpc::Reply<$response>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(crate::grpc::not_served(concat!($service, ".", stringify!($method)))) })
        }
    )* };
}
use unserved;
