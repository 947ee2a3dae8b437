//! Applications and their HTTP integration.

use chirpstack_api::api::{self, application_service_server::ApplicationService};
use limpet_store::List;
use limpet_worker_core::model::{Application, HttpIntegration};
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Grpc, Reply, reply, unserved};
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, required},
    lists, quota,
};

fn write(application: &Application) -> api::Application {
    api::Application {
        id: application.id.to_string(),
        name: application.name.clone(),
        description: application.description.clone(),
        tenant_id: application.tenant_id.to_string(),
        tags: fields::map(&application.tags),
    }
}

fn list_item(application: &Application) -> api::ApplicationListItem {
    api::ApplicationListItem {
        id: application.id.to_string(),
        created_at: Some(clock::timestamp(application.created_at)),
        updated_at: Some(clock::timestamp(application.updated_at)),
        name: application.name.clone(),
        description: application.description.clone(),
    }
}

fn read_http(given: api::HttpIntegration) -> Result<HttpIntegration> {
    let json = match api::Encoding::try_from(given.encoding) {
        Ok(api::Encoding::Json) => true,
        Ok(api::Encoding::Protobuf) => false,
        Err(_) => return Err(ApiError::invalid("encoding", "must be JSON or PROTOBUF")),
    };
    let http = HttpIntegration {
        headers: fields::tags("headers", given.headers)?,
        json,
        url: fields::text("event_endpoint_url", given.event_endpoint_url)?,
    };
    check_http("event_endpoint_url", &http)?;
    Ok(http)
}

/// Whether events could be sent there.
pub(crate) fn check_http(field: &'static str, http: &HttpIntegration) -> Result<()> {
    limpet_integration::check(http).map_err(|e| match e {
        limpet_integration::DeliveryError::Header(_) => ApiError::invalid("headers", e.to_string()),
        _ => ApiError::invalid(field, e.to_string()),
    })
}

fn write_http(application: &Application, http: &HttpIntegration) -> api::HttpIntegration {
    let encoding = if http.json { api::Encoding::Json } else { api::Encoding::Protobuf };
    api::HttpIntegration {
        application_id: application.id.to_string(),
        headers: fields::map(&http.headers),
        encoding: encoding.into(),
        event_endpoint_url: http.url.clone(),
    }
}

fn no_integration(application: &Application) -> ApiError {
    ApiError::NotFound(format!("an HTTP integration of application {}", application.id))
}

impl Grpc {
    /// An application that the caller may use.
    pub(super) async fn application(
        &self,
        caller: &Caller,
        field: &'static str,
        id: &str,
        access: Access,
    ) -> Result<Application> {
        let id = fields::id(field, id)?;
        let found = self.0.store.application(id).await?;
        let application = found.ok_or_else(|| ApiError::NotFound(format!("application {id}")))?;
        caller.of_tenant(application.tenant_id, access)?;
        Ok(application)
    }

    async fn set_http(&self, application: Application, http: Option<HttpIntegration>) -> Reply<()> {
        let application = Application { http, updated_at: clock::now(), ..application };
        self.0.store.update_application(&application).await.map_err(ApiError::from)?;
        reply(())
    }
}

#[async_trait]
impl ApplicationService for Grpc {
    async fn create(&self, request: Request<api::CreateApplicationRequest>) -> Reply<api::CreateApplicationResponse> {
        let (caller, request) = self.admit(request)?;
        let given = required("application", request.application)?;
        let tenant_id = fields::id("tenant_id", &given.tenant_id)?;
        caller.of_tenant(tenant_id, Access::Write)?;
        let now = clock::now();
        let application = Application {
            id: Uuid::new_v4(),
            created_at: now,
            updated_at: now,
            tenant_id: quota::tenant(self.0.store.as_ref(), tenant_id).await?.id,
            name: fields::name("name", &given.name)?,
            description: fields::text("description", given.description)?,
            tags: fields::tags("tags", given.tags)?,
            http: None,
        };
        self.0.store.create_application(&application).await.map_err(ApiError::from)?;
        reply(api::CreateApplicationResponse { id: application.id.to_string() })
    }

    async fn get(&self, request: Request<api::GetApplicationRequest>) -> Reply<api::GetApplicationResponse> {
        let (caller, request) = self.admit(request)?;
        let application = self.application(&caller, "id", &request.id, Access::Read).await?;
        reply(api::GetApplicationResponse {
            created_at: Some(clock::timestamp(application.created_at)),
            updated_at: Some(clock::timestamp(application.updated_at)),
            application: Some(write(&application)),
            measurement_keys: Vec::new(),
        })
    }

    async fn update(&self, request: Request<api::UpdateApplicationRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("application", request.application)?;
        let known = self.application(&caller, "application.id", &given.id, Access::Write).await?;
        let tenant = fields::optional_id("tenant_id", &given.tenant_id)?;
        fields::refuse("tenant_id", tenant.is_some_and(|t| t != known.tenant_id), "an application keeps its tenant")?;
        let application = Application {
            updated_at: clock::now(),
            name: fields::name("name", &given.name)?,
            description: fields::text("description", given.description)?,
            tags: fields::tags("tags", given.tags)?,
            ..known
        };
        self.0.store.update_application(&application).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn delete(&self, request: Request<api::DeleteApplicationRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let application = self.application(&caller, "id", &request.id, Access::Write).await?;
        self.0.store.delete_application(application.id).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn list(&self, request: Request<api::ListApplicationsRequest>) -> Reply<api::ListApplicationsResponse> {
        let (caller, request) = self.admit(request)?;
        let list = List {
            limit: request.limit.min(lists::MOST),
            offset: request.offset,
            search: request.search,
            tenant: caller.listed_tenant(fields::optional_id("tenant_id", &request.tenant_id)?)?,
            ..List::default()
        };
        let page = self.0.store.applications(&list).await.map_err(ApiError::from)?;
        reply(api::ListApplicationsResponse {
            total_count: page.total,
            result: page.items.iter().map(list_item).collect(),
        })
    }

    async fn list_integrations(
        &self,
        request: Request<api::ListIntegrationsRequest>,
    ) -> Reply<api::ListIntegrationsResponse> {
        let (caller, request) = self.admit(request)?;
        let application = self.application(&caller, "application_id", &request.application_id, Access::Read).await?;
        let item = |_| api::IntegrationListItem { kind: api::IntegrationKind::Http.into() };
        let result: Vec<_> = application.http.iter().map(item).collect();
        reply(api::ListIntegrationsResponse { total_count: result.len() as u32, result })
    }

    async fn create_http_integration(&self, request: Request<api::CreateHttpIntegrationRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("integration", request.integration)?;
        let application = self.application(&caller, "application_id", &given.application_id, Access::Write).await?;
        if application.http.is_some() {
            let what = format!("the HTTP integration of application {}", application.id);
            return Err(ApiError::AlreadyExists(what).into());
        }
        self.set_http(application, Some(read_http(given)?)).await
    }

    async fn get_http_integration(
        &self,
        request: Request<api::GetHttpIntegrationRequest>,
    ) -> Reply<api::GetHttpIntegrationResponse> {
        let (caller, request) = self.admit(request)?;
        let application = self.application(&caller, "application_id", &request.application_id, Access::Read).await?;
        let http = application.http.as_ref().ok_or_else(|| no_integration(&application))?;
        reply(api::GetHttpIntegrationResponse { integration: Some(write_http(&application, http)) })
    }

    async fn update_http_integration(&self, request: Request<api::UpdateHttpIntegrationRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("integration", request.integration)?;
        let application = self.application(&caller, "application_id", &given.application_id, Access::Write).await?;
        if application.http.is_none() {
            return Err(no_integration(&application).into());
        }
        self.set_http(application, Some(read_http(given)?)).await
    }

    async fn delete_http_integration(&self, request: Request<api::DeleteHttpIntegrationRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let application = self.application(&caller, "application_id", &request.application_id, Access::Write).await?;
        if application.http.is_none() {
            return Err(no_integration(&application).into());
        }
        self.set_http(application, None).await
    }

    unserved! { "ApplicationService":
        create_influx_db_integration(CreateInfluxDbIntegrationRequest) -> ();
        get_influx_db_integration(GetInfluxDbIntegrationRequest) -> api::GetInfluxDbIntegrationResponse;
        update_influx_db_integration(UpdateInfluxDbIntegrationRequest) -> ();
        delete_influx_db_integration(DeleteInfluxDbIntegrationRequest) -> ();
        create_things_board_integration(CreateThingsBoardIntegrationRequest) -> ();
        get_things_board_integration(GetThingsBoardIntegrationRequest) -> api::GetThingsBoardIntegrationResponse;
        update_things_board_integration(UpdateThingsBoardIntegrationRequest) -> ();
        delete_things_board_integration(DeleteThingsBoardIntegrationRequest) -> ();
        create_my_devices_integration(CreateMyDevicesIntegrationRequest) -> ();
        get_my_devices_integration(GetMyDevicesIntegrationRequest) -> api::GetMyDevicesIntegrationResponse;
        update_my_devices_integration(UpdateMyDevicesIntegrationRequest) -> ();
        delete_my_devices_integration(DeleteMyDevicesIntegrationRequest) -> ();
        create_gcp_pub_sub_integration(CreateGcpPubSubIntegrationRequest) -> ();
        get_gcp_pub_sub_integration(GetGcpPubSubIntegrationRequest) -> api::GetGcpPubSubIntegrationResponse;
        update_gcp_pub_sub_integration(UpdateGcpPubSubIntegrationRequest) -> ();
        delete_gcp_pub_sub_integration(DeleteGcpPubSubIntegrationRequest) -> ();
        create_aws_sns_integration(CreateAwsSnsIntegrationRequest) -> ();
        get_aws_sns_integration(GetAwsSnsIntegrationRequest) -> api::GetAwsSnsIntegrationResponse;
        update_aws_sns_integration(UpdateAwsSnsIntegrationRequest) -> ();
        delete_aws_sns_integration(DeleteAwsSnsIntegrationRequest) -> ();
        create_azure_service_bus_integration(CreateAzureServiceBusIntegrationRequest) -> ();
        get_azure_service_bus_integration(GetAzureServiceBusIntegrationRequest)
            -> api::GetAzureServiceBusIntegrationResponse;
        update_azure_service_bus_integration(UpdateAzureServiceBusIntegrationRequest) -> ();
        delete_azure_service_bus_integration(DeleteAzureServiceBusIntegrationRequest) -> ();
        create_pilot_things_integration(CreatePilotThingsIntegrationRequest) -> ();
        get_pilot_things_integration(GetPilotThingsIntegrationRequest) -> api::GetPilotThingsIntegrationResponse;
        update_pilot_things_integration(UpdatePilotThingsIntegrationRequest) -> ();
        delete_pilot_things_integration(DeletePilotThingsIntegrationRequest) -> ();
        create_ifttt_integration(CreateIftttIntegrationRequest) -> ();
        get_ifttt_integration(GetIftttIntegrationRequest) -> api::GetIftttIntegrationResponse;
        update_ifttt_integration(UpdateIftttIntegrationRequest) -> ();
        delete_ifttt_integration(DeleteIftttIntegrationRequest) -> ();
        create_blynk_integration(CreateBlynkIntegrationRequest) -> ();
        get_blynk_integration(GetBlynkIntegrationRequest) -> api::GetBlynkIntegrationResponse;
        update_blynk_integration(UpdateBlynkIntegrationRequest) -> ();
        delete_blynk_integration(DeleteBlynkIntegrationRequest) -> ();
        generate_mqtt_integration_client_certificate(GenerateMqttIntegrationClientCertificateRequest)
            -> api::GenerateMqttIntegrationClientCertificateResponse;
        list_device_profiles(ListApplicationDeviceProfilesRequest) -> api::ListApplicationDeviceProfilesResponse;
        list_device_tags(ListApplicationDeviceTagsRequest) -> api::ListApplicationDeviceTagsResponse;
    }
}
