#!/usr/bin/env python3
"""Provisions a network over the API with ChirpStack's official client, and checks every answer on the way.

usage: provision.py HOST:PORT PASSWORD

Leaves the network as it was. Exits with 1 and one line at the first answer that is not as it should be.
"""

import secrets
import sys

import grpc
from chirpstack_api import api, common

MISSING = "11111111-2222-4333-8444-555555555555"
TIME_LIMIT = 20  # seconds for one call


class Mismatch(Exception):
    """An answer that is not as it should be."""


def check(what, is_so):
    if not is_so:
        raise Mismatch(what)


class Client:
    """Every service, with one authorization header."""

    def __init__(self, channel, token=None):
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._stubs = {
            "internal": api.InternalServiceStub(channel),
            "user": api.UserServiceStub(channel),
            "tenant": api.TenantServiceStub(channel),
            "application": api.ApplicationServiceStub(channel),
            "profile": api.DeviceProfileServiceStub(channel),
            "gateway": api.GatewayServiceStub(channel),
            "device": api.DeviceServiceStub(channel),
            "multicast": api.MulticastGroupServiceStub(channel),
        }

    def call(self, service, method, request):
        """The answer, which must be a good one."""
        try:
            return self._ask(service, method, request)
        except grpc.RpcError as error:
            raise Mismatch(f"{service}.{method} answers {error.code().name}: {error.details()}") from error

    def refused(self, code, service, method, request):
        """The call must be refused with this status, and say why."""
        try:
            self._ask(service, method, request)
        except grpc.RpcError as error:
            says = f"{error.code().name}: {error.details()}"
            check(f"{service}.{method} answers {says} instead of {code.name}", error.code() == code)
            check(f"{service}.{method} answers {code.name} without a word", error.details())
        else:
            raise Mismatch(f"{service}.{method} is accepted instead of {code.name}: {request}")

    def _ask(self, service, method, request):
        return getattr(self._stubs[service], method)(request, metadata=self._metadata, timeout=TIME_LIMIT)


def random_eui():
    return secrets.token_hex(8)


def log_in(channel, password):
    """A client of the administrator; wrong passwords and tokens on the way."""
    nobody = Client(channel)
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    nobody.refused(unauthenticated, "internal", "Login", api.LoginRequest(email="admin", password=password + "x"))
    nobody.refused(unauthenticated, "internal", "Login", api.LoginRequest(email="no@example.org", password=password))
    nobody.refused(unauthenticated, "tenant", "List", api.ListTenantsRequest(limit=1))
    Client(channel, "nonsense").refused(unauthenticated, "tenant", "List", api.ListTenantsRequest(limit=1))

    jwt = nobody.call("internal", "Login", api.LoginRequest(email="admin", password=password)).jwt
    Client(channel, jwt[:-4]).refused(unauthenticated, "tenant", "List", api.ListTenantsRequest(limit=1))
    admin = Client(channel, jwt)
    nobody.call("internal", "Settings", empty())
    user = admin.call("internal", "Profile", empty()).user
    check("the profile is admin's", user.email == "admin" and user.is_admin)
    tenants = admin.call("tenant", "List", api.ListTenantsRequest(limit=100))
    check("there is a tenant Limpet", "Limpet" in [tenant.name for tenant in tenants.result])
    return admin


def empty():
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()


def api_keys(channel, admin, tenant_id):
    """A key of the network does what its maker does; a tenant's key only that tenant's work; a deleted one nothing."""
    request = api.CreateApiKeyRequest(api_key=api.ApiKey(name="check", is_admin=True))
    key = admin.call("internal", "CreateApiKey", request)
    as_key = Client(channel, key.token)
    as_key.call("tenant", "Get", api.GetTenantRequest(id=tenant_id))
    listed = admin.call("internal", "ListApiKeys", api.ListApiKeysRequest(limit=1000, is_admin=True))
    check("the key is listed", key.id in [one.id for one in listed.result])

    other = admin.call("tenant", "Create", api.CreateTenantRequest(tenant=api.Tenant(name="other check"))).id
    request = api.CreateApiKeyRequest(api_key=api.ApiKey(name="theirs", tenant_id=other))
    theirs = Client(channel, admin.call("internal", "CreateApiKey", request).token)
    theirs.call("tenant", "Get", api.GetTenantRequest(id=other))
    theirs.refused(grpc.StatusCode.PERMISSION_DENIED, "tenant", "Get", api.GetTenantRequest(id=tenant_id))
    theirs.refused(
        grpc.StatusCode.PERMISSION_DENIED, "application", "List", api.ListApplicationsRequest(tenant_id=tenant_id)
    )
    admin.call("tenant", "Delete", api.DeleteTenantRequest(id=other))
    theirs.refused(grpc.StatusCode.UNAUTHENTICATED, "tenant", "Get", api.GetTenantRequest(id=other))
    admin.call("internal", "DeleteApiKey", api.DeleteApiKeyRequest(id=key.id))
    as_key.refused(grpc.StatusCode.UNAUTHENTICATED, "tenant", "Get", api.GetTenantRequest(id=tenant_id))


def application(admin, tenant_id):
    """An application with an HTTP integration."""
    request = api.CreateApplicationRequest(application=api.Application(name="check", tenant_id=tenant_id))
    application_id = admin.call("application", "Create", request).id
    orphan = api.CreateApplicationRequest(application=api.Application(name="check", tenant_id=MISSING))
    admin.refused(grpc.StatusCode.NOT_FOUND, "application", "Create", orphan)
    unnamed = api.CreateApplicationRequest(application=api.Application(tenant_id=tenant_id))
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "application", "Create", unnamed)

    http = api.HttpIntegration(
        application_id=application_id,
        event_endpoint_url="http://127.0.0.1:9/hook",
        headers={"X-Check": "1"},
        encoding=api.Encoding.JSON,
    )
    create = api.CreateHttpIntegrationRequest(integration=http)
    get = api.GetHttpIntegrationRequest(application_id=application_id)
    admin.refused(grpc.StatusCode.NOT_FOUND, "application", "GetHttpIntegration", get)
    admin.call("application", "CreateHttpIntegration", create)
    admin.refused(grpc.StatusCode.ALREADY_EXISTS, "application", "CreateHttpIntegration", create)
    check("the HTTP integration comes back", admin.call("application", "GetHttpIntegration", get).integration == http)
    bad = api.UpdateHttpIntegrationRequest(
        integration=api.HttpIntegration(application_id=application_id, event_endpoint_url="nowhere")
    )
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "application", "UpdateHttpIntegration", bad)
    kinds = admin.call("application", "ListIntegrations", api.ListIntegrationsRequest(application_id=application_id))
    check("one integration is listed", [one.kind for one in kinds.result] == [api.IntegrationKind.HTTP])
    return application_id


def device_profile(admin, tenant_id):
    """A profile as ChirpStack's own interface would make it, in a region that the network has."""
    region = admin.call("internal", "ListRegions", empty()).regions[0]
    profile = api.DeviceProfile(
        name="check",
        tenant_id=tenant_id,
        region=region.region,
        region_config_id=region.id,
        mac_version=common.MacVersion.LORAWAN_1_0_3,
        reg_params_revision=common.RegParamsRevision.A,
        adr_algorithm_id="default",
        supports_otaa=True,
        uplink_interval=3600,
        device_status_req_interval=1,
        auto_detect_measurements=True,
    )
    profile_id = admin.call("profile", "Create", api.CreateDeviceProfileRequest(device_profile=profile)).id
    back = admin.call("profile", "Get", api.GetDeviceProfileRequest(id=profile_id)).device_profile
    check("the profile comes back", (back.name, back.region_config_id) == ("check", region.id))
    for field, value in [
        ("mac_version", common.MacVersion.LORAWAN_1_1_0),
        ("supports_class_c", True),
        ("is_relay", True),
        ("tenant_id", "no uuid"),
        ("name", ""),
    ]:
        bad = api.DeviceProfile()
        bad.CopyFrom(profile)
        setattr(bad, field, value)
        request = api.CreateDeviceProfileRequest(device_profile=bad)
        admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "profile", "Create", request)
    algorithms = admin.call("profile", "ListAdrAlgorithms", empty())
    check("there is the default ADR algorithm", [one.id for one in algorithms.result] == ["default"])
    return profile_id


def gateway(admin, tenant_id):
    eui = random_eui()
    create = api.CreateGatewayRequest(
        gateway=api.Gateway(gateway_id=eui, name="check", tenant_id=tenant_id, stats_interval=30)
    )
    admin.call("gateway", "Create", create)
    admin.refused(grpc.StatusCode.ALREADY_EXISTS, "gateway", "Create", create)
    back = admin.call("gateway", "Get", api.GetGatewayRequest(gateway_id=eui)).gateway
    check("the gateway comes back", (back.gateway_id, back.name) == (eui, "check"))
    for malformed in ["", eui[:-1], eui + "0", "x" * 16]:
        request = api.GetGatewayRequest(gateway_id=malformed)
        admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "gateway", "Get", request)
    admin.refused(grpc.StatusCode.NOT_FOUND, "gateway", "Get", api.GetGatewayRequest(gateway_id=random_eui()))
    orphan = api.Gateway(gateway_id=random_eui(), name="check", tenant_id=MISSING)
    admin.refused(grpc.StatusCode.NOT_FOUND, "gateway", "Create", api.CreateGatewayRequest(gateway=orphan))
    listed = admin.call("gateway", "List", api.ListGatewaysRequest(limit=10, tenant_id=tenant_id, search=eui))
    check("the gateway is listed", (listed.total_count, listed.result[0].gateway_id) == (1, eui))
    return eui


def device(admin, application_id, profile_id):
    eui = random_eui()

    def create(**changes):
        fields = {
            "dev_eui": eui,
            "name": "check",
            "application_id": application_id,
            "device_profile_id": profile_id,
            "tags": {"floor": "1"},
        }
        return api.CreateDeviceRequest(device=api.Device(**{**fields, **changes}))

    admin.call("device", "Create", create())
    admin.refused(grpc.StatusCode.ALREADY_EXISTS, "device", "Create", create())
    other = random_eui()
    for missing_parent in ["application_id", "device_profile_id"]:
        request = create(dev_eui=other, **{missing_parent: MISSING})
        admin.refused(grpc.StatusCode.NOT_FOUND, "device", "Create", request)
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "Create", create(dev_eui="0102"))
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "Create", create(dev_eui=other, name=""))
    admin.refused(grpc.StatusCode.NOT_FOUND, "device", "Get", api.GetDeviceRequest(dev_eui=other))
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "Get", api.GetDeviceRequest(dev_eui="zz" * 8))

    for filters in [{"tags": {"floor": "1"}}, {"search": eui[:10]}, {"device_profile_id": profile_id}, {}]:
        request = api.ListDevicesRequest(limit=10, application_id=application_id, **filters)
        listed = admin.call("device", "List", request)
        check(f"the device is listed with {filters}", [one.dev_eui for one in listed.result] == [eui])
    counted = admin.call("device", "List", api.ListDevicesRequest(application_id=application_id))
    check("limit 0 only counts", (counted.total_count, len(counted.result)) == (1, 0))
    used = api.DeleteDeviceProfileRequest(id=profile_id)
    admin.refused(grpc.StatusCode.FAILED_PRECONDITION, "profile", "Delete", used)
    return eui


def keys(admin, eui):
    def request(kind, key):
        return kind(device_keys=api.DeviceKeys(dev_eui=eui, nwk_key=key))

    key = secrets.token_hex(16)
    get = api.GetDeviceKeysRequest(dev_eui=eui)
    admin.refused(grpc.StatusCode.NOT_FOUND, "device", "GetKeys", get)
    short = request(api.CreateDeviceKeysRequest, key[:-2])
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "CreateKeys", short)
    admin.call("device", "CreateKeys", request(api.CreateDeviceKeysRequest, key))
    admin.refused(
        grpc.StatusCode.ALREADY_EXISTS, "device", "CreateKeys", request(api.CreateDeviceKeysRequest, key)
    )
    check("the key comes back", admin.call("device", "GetKeys", get).device_keys.nwk_key == key)
    key = secrets.token_hex(16)
    admin.call("device", "UpdateKeys", request(api.UpdateDeviceKeysRequest, key))
    check("the new key comes back", admin.call("device", "GetKeys", get).device_keys.nwk_key == key)
    admin.call("device", "FlushDevNonces", api.FlushDevNoncesRequest(dev_eui=eui))


def session(admin, eui):
    address = admin.call("device", "GetRandomDevAddr", api.GetRandomDevAddrRequest(dev_eui=eui)).dev_addr
    nwk_s_key, app_s_key = secrets.token_hex(16), secrets.token_hex(16)
    get = api.GetDeviceActivationRequest(dev_eui=eui)
    before = admin.call("device", "GetActivation", get)
    check("there is no session yet", not before.HasField("device_activation"))

    def activate(**changes):
        fields = {
            "dev_eui": eui,
            "dev_addr": address,
            "app_s_key": app_s_key,
            "nwk_s_enc_key": nwk_s_key,
            "s_nwk_s_int_key": nwk_s_key,
            "f_nwk_s_int_key": nwk_s_key,
            "n_f_cnt_down": 5,
        }
        return api.ActivateDeviceRequest(device_activation=api.DeviceActivation(**{**fields, **changes}))

    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "Activate", activate(app_s_key="00"))
    admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "device", "Activate", activate(dev_addr="x"))
    admin.refused(grpc.StatusCode.NOT_FOUND, "device", "Activate", activate(dev_eui=random_eui()))
    admin.call("device", "Activate", activate())
    now = admin.call("device", "GetActivation", get).device_activation
    check("the session comes back", (now.dev_addr, now.nwk_s_enc_key, now.app_s_key) == (address, nwk_s_key, app_s_key))
    request = api.GetDeviceNextFCntDownRequest(dev_eui=eui)
    check("FCntDown is as set", admin.call("device", "GetNextFCntDown", request).f_cnt_down == 5)


def queue(admin, eui):
    def enqueue(**changes):
        fields = {"dev_eui": eui, "f_port": 10, "data": b"\x01\x02"}
        return api.EnqueueDeviceQueueItemRequest(queue_item=api.DeviceQueueItem(**{**fields, **changes}))

    get = api.GetDeviceQueueItemsRequest(dev_eui=eui)
    first = admin.call("device", "Enqueue", enqueue()).id
    second = admin.call("device", "Enqueue", enqueue(confirmed=True, data=b"\x03")).id
    items = admin.call("device", "GetQueue", get)
    shown = [(item.id, item.data, item.confirmed, item.is_pending) for item in items.result]
    expected = [(first, b"\x01\x02", False, False), (second, b"\x03", True, False)]
    check("the queue has both, in order", (items.total_count, shown) == (2, expected))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    admin.refused(invalid, "device", "Enqueue", enqueue(f_port=0))
    admin.refused(invalid, "device", "Enqueue", enqueue(f_port=256))
    admin.refused(invalid, "device", "Enqueue", enqueue(data=bytes(243)))
    admin.refused(invalid, "device", "Enqueue", enqueue(dev_eui="0102"))
    admin.refused(grpc.StatusCode.NOT_FOUND, "device", "Enqueue", enqueue(dev_eui=random_eui()))
    admin.refused(grpc.StatusCode.ALREADY_EXISTS, "device", "Enqueue", enqueue(id=first))
    counted = admin.call("device", "GetQueue", api.GetDeviceQueueItemsRequest(dev_eui=eui, count_only=True))
    check("count_only counts", (counted.total_count, len(counted.result)) == (2, 0))
    admin.call("device", "FlushQueue", api.FlushDeviceQueueRequest(dev_eui=eui))
    check("a flushed queue is empty", admin.call("device", "GetQueue", get).total_count == 0)
    admin.call("device", "Deactivate", api.DeactivateDeviceRequest(dev_eui=eui))


def what_is_not_served(admin, eui):
    unimplemented = grpc.StatusCode.UNIMPLEMENTED
    admin.refused(unimplemented, "multicast", "List", api.ListMulticastGroupsRequest())
    admin.refused(unimplemented, "device", "GetMetrics", api.GetDeviceMetricsRequest(dev_eui=eui))
    admin.refused(unimplemented, "internal", "GlobalSearch", api.GlobalSearchRequest(search="a"))


def users(channel, admin):
    email, password = f"{secrets.token_hex(6)}@example.org", "a password"
    create = api.CreateUserRequest(user=api.User(email=email, is_active=True), password=password)
    user_id = admin.call("user", "Create", create).id
    admin.refused(grpc.StatusCode.ALREADY_EXISTS, "user", "Create", create)
    jwt = Client(channel).call("internal", "Login", api.LoginRequest(email=email, password=password)).jwt
    plain = Client(channel, jwt)
    plain.refused(grpc.StatusCode.PERMISSION_DENIED, "user", "List", api.ListUsersRequest(limit=1))
    plain.call("user", "UpdatePassword", api.UpdateUserPasswordRequest(user_id=user_id, password="another one"))
    plain.refused(grpc.StatusCode.UNAUTHENTICATED, "internal", "Profile", empty())
    admin.call("user", "Delete", api.DeleteUserRequest(id=user_id))
    admin.refused(grpc.StatusCode.NOT_FOUND, "user", "Get", api.GetUserRequest(id=user_id))


def provision(target, password):
    with grpc.insecure_channel(target) as channel:
        admin = log_in(channel, password)
        tenant = api.Tenant(name="check", can_have_gateways=True)
        tenant_id = admin.call("tenant", "Create", api.CreateTenantRequest(tenant=tenant)).id
        try:
            admin.refused(grpc.StatusCode.NOT_FOUND, "tenant", "Get", api.GetTenantRequest(id=MISSING))
            admin.refused(grpc.StatusCode.INVALID_ARGUMENT, "tenant", "Get", api.GetTenantRequest(id="1"))
            api_keys(channel, admin, tenant_id)
            application_id = application(admin, tenant_id)
            profile_id = device_profile(admin, tenant_id)
            gateway_eui = gateway(admin, tenant_id)
            eui = device(admin, application_id, profile_id)
            keys(admin, eui)
            session(admin, eui)
            queue(admin, eui)
            what_is_not_served(admin, eui)
            users(channel, admin)
            admin.call("application", "Delete", api.DeleteApplicationRequest(id=application_id))
            admin.refused(grpc.StatusCode.NOT_FOUND, "device", "Get", api.GetDeviceRequest(dev_eui=eui))
            admin.call("profile", "Delete", api.DeleteDeviceProfileRequest(id=profile_id))
        finally:
            admin.call("tenant", "Delete", api.DeleteTenantRequest(id=tenant_id))
        gone = api.GetGatewayRequest(gateway_id=gateway_eui)
        admin.refused(grpc.StatusCode.NOT_FOUND, "gateway", "Get", gone)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    target = sys.argv[1].removeprefix("http://").rstrip("/")
    try:
        provision(target, sys.argv[2])
    except Mismatch as mismatch:
        sys.exit(f"provision.py: {mismatch}")
    print("provisioned, checked and taken away again")


if __name__ == "__main__":
    main()
