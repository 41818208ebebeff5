"""Apps: created, published in versions, found by name, stopped; the environment; containers as a user lists them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.container import Container, ContainerState
from tests.modal_server.scheduler import Scheduler, app_layout
from tests.modal_server.world import ENVIRONMENT, App, World, environment_of, found, missing, new_id

_BUILDER = "2025.06"
_EPHEMERAL = (api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_INITIALIZING)


class AppResponder:
    """Answers the App, Environment, Task and Container calls."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler

    async def ClientHello(self, request: object) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=_BUILDER)

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = environment_of(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=_BUILDER)
        metadata = api_pb2.EnvironmentMetadata(name=name, settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id=f"en-{name}", metadata=metadata)

    async def EnvironmentList(self, request: object) -> api_pb2.EnvironmentListResponse:
        return api_pb2.EnvironmentListResponse(items=[api_pb2.EnvironmentListItem(name=ENVIRONMENT, default=True)])

    async def WorkspaceBillingRates(self, request: object) -> api_pb2.WorkspaceBillingRatesResponse:
        rates = self._world.settings.billing_rates
        if rates is None:
            raise GRPCError(Status.UNIMPLEMENTED, "this workspace does not say what it pays")
        return api_pb2.WorkspaceBillingRatesResponse(rates=dict(rates), formatted="\n".join(rates))

    async def WorkspaceNameLookup(self, request: object) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(workspace_name="local", username="local")

    async def TokenInfoGet(self, request: object) -> api_pb2.TokenInfoGetResponse:
        return api_pb2.TokenInfoGetResponse(token_id=self._world.settings.token[0], workspace_name="local")

    async def AppCreate(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        app = App(new_id("ap"), request.description, environment_of(request.environment_name), request.app_state)
        app.tags.update(request.tags)
        self._world.apps[app.id] = app
        return api_pb2.AppCreateResponse(
            app_id=app.id, app_page_url=f"local://{app.id}", app_logs_url=f"local://{app.id}"
        )

    async def AppGetOrCreate(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        key = (environment_of(request.environment_name), request.app_name)
        if key not in self._world.deployed:
            if request.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise missing(f"App {request.app_name!r}")
            app = App(new_id("ap"), request.app_name, key[0], api_pb2.APP_STATE_DEPLOYED, name=request.app_name)
            self._world.apps[app.id] = app
            self._world.deployed[key] = app.id
        return api_pb2.AppGetOrCreateResponse(app_id=self._world.deployed[key])

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        app_id = self._world.deployed.get((environment_of(request.environment_name), request.name), "")
        answer = api_pb2.AppGetByDeploymentNameResponse(app_id=app_id)
        if app_id:
            answer.lifecycle.CopyFrom(self._world.app(app_id).lifecycle())
        return answer

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        app = self._world.app(request.app_id)
        return api_pb2.AppGetLayoutResponse(app_layout=app_layout(self._world, app.function_ids))

    async def AppGetLifecycle(self, request: api_pb2.AppGetLifecycleRequest) -> api_pb2.AppGetLifecycleResponse:
        return api_pb2.AppGetLifecycleResponse(lifecycle=self._world.app(request.app_id).lifecycle())

    async def AppGetInfo(self, request: api_pb2.AppGetInfoRequest) -> api_pb2.AppGetInfoResponse:
        app = self._world.app(request.app_id)
        info = api_pb2.AppHandleMetadata(
            description=app.description,
            app_id=app.id,
            environment_name=app.environment,
            lifecycle=app.lifecycle(),
            functions=app.function_ids,
        )
        return api_pb2.AppGetInfoResponse(info=info)

    async def AppHeartbeat(self, request: object) -> None:
        return None

    async def AppPublish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        """The new definitions take effect here, and not when they are created."""
        app = self._world.app(request.app_id)
        app.function_ids = dict(request.function_ids)
        app.tags.update(request.tags)
        for function_id, definition_id in request.definition_ids.items():
            if definition_id in self._world.definitions:
                self._world.function(function_id).definition = self._world.definitions[definition_id]
        if request.app_state != api_pb2.APP_STATE_UNSPECIFIED:
            app.state = request.app_state
        if request.app_state == api_pb2.APP_STATE_DEPLOYED:
            app.name, app.deployed_at = request.name, time.time()
            self._world.deployed[(app.environment, request.name)] = app.id
            app.versions.append(
                {tag: (one, request.definition_ids.get(one, "")) for tag, one in request.function_ids.items()}
            )
        self._scheduler.redeployed(app.id)
        return api_pb2.AppPublishResponse(url=f"local://{app.id}", deployed_at=app.deployed_at or time.time())

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest) -> None:
        app = self._world.app(request.app_id)
        if app.state in _EPHEMERAL:
            self._stop(app)

    async def AppStop(self, request: api_pb2.AppStopRequest) -> None:
        self._stop(self._world.app(request.app_id))

    async def AppList(self, request: api_pb2.AppListRequest) -> api_pb2.AppListResponse:
        environment = environment_of(request.environment_name)
        return api_pb2.AppListResponse(
            apps=[
                api_pb2.AppListResponse.AppListItem(
                    app_id=app.id,
                    description=app.description,
                    name=app.name,
                    state=app.state,  # type: ignore[arg-type]
                    created_at=app.created_at,
                    stopped_at=app.stopped_at,
                    n_running_tasks=sum(1 for _ in self._tasks(app.id)),
                )
                for app in self._world.apps.values()
                if app.environment == environment
            ]
        )

    async def AppSetTags(self, request: api_pb2.AppSetTagsRequest) -> None:
        self._world.app(request.app_id).tags = dict(request.tags)

    async def AppGetTags(self, request: api_pb2.AppGetTagsRequest) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._world.app(request.app_id).tags)

    async def TaskList(self, request: api_pb2.TaskListRequest) -> api_pb2.TaskListResponse:
        return api_pb2.TaskListResponse(
            tasks=[
                api_pb2.TaskStats(
                    task_id=container.id,
                    app_id=container.pool.record.app_id,
                    app_description=self._world.app(container.pool.record.app_id).description,
                    started_at=container.created_at,
                    enqueued_at=container.created_at,
                )
                for container in self._tasks(request.app_id)
            ]
        )

    async def TaskGetInfo(self, request: api_pb2.TaskGetInfoRequest) -> api_pb2.TaskGetInfoResponse:
        container = found(self._world.containers, request.task_id, "Container")
        info = api_pb2.TaskInfo(
            id=container.id,
            started_at=container.created_at,
            finished_at=container.ended_at,
            enqueued_at=container.created_at,
            gpu_type=container.function.resources.gpu_config.gpu_type,
            gpu_config=container.function.resources.gpu_config,
        )
        return api_pb2.TaskGetInfoResponse(app_id=container.pool.record.app_id, info=info)

    async def ContainerStop(self, request: api_pb2.ContainerStopRequest) -> None:
        """SIGINT; its inputs start again elsewhere. `graceful`: it only gets no more inputs."""
        container = found(self._world.containers, request.task_id, "Container")
        if container.state == ContainerState.ENDED:
            raise GRPCError(Status.FAILED_PRECONDITION, f"{container.id} has ended")
        if request.graceful:
            container.stopping = True
        else:
            container.interrupt(preempted=True)

    def _tasks(self, app_id: str) -> Iterable[Container]:
        return (
            container
            for container in self._world.containers.values()
            if container.state != ContainerState.ENDED and app_id in ("", container.pool.record.app_id)
        )

    def _stop(self, app: App) -> None:
        if app.stopped:
            return
        app.state, app.stopped_at = api_pb2.APP_STATE_STOPPED, time.time()
        if self._world.deployed.get((app.environment, app.name)) == app.id:
            del self._world.deployed[(app.environment, app.name)]
        self._scheduler.stop_app(app.id)
