// The flow with the types that openapi-typescript made, and openapi-fetch.
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./mica.js";

function needed(name: string): string {
  const value = process.env[name];
  assert(value !== undefined, `${name} is not set`);
  return value;
}

function client(token: string) {
  return createClient<paths>({
    baseUrl: needed("MICA_ADDRESS"),
    headers: { Authorization: `Bearer ${token}` },
  });
}

type Problem = components["schemas"]["Problem"];

function kind(problem: Problem | undefined): string | undefined {
  return problem?.code;
}

const id = needed("MICA_NAME");
const path = { id };
const first = client(needed("MICA_TOKEN"));
const host = await first.GET("/v1/host");
assert((host.data?.status.memory.total_bytes ?? 0) > 2 ** 31);
const issued = await first.PUT("/v1/tokens/{id}", {
  params: { path },
  body: { spec: { role: "admin" } },
});
assert(issued.data !== undefined);
const mica = client(issued.data.secret);
const datastore = await mica.PUT("/v1/datastores/{id}", {
  params: { path, query: { wait: 60 } },
  body: { spec: { kind: "directory", path: needed("MICA_FOLDER") } },
});
assert.equal(datastore.data?.state, "succeeded");
const data = readFileSync(needed("MICA_IMAGE"));
const sha256 = createHash("sha256").update(data).digest("hex");
const image = await mica.PUT("/v1/images/{id}", {
  params: { path, query: { datastore: id, sha256, format: "raw" } },
  headers: { "Content-Type": "application/octet-stream" },
  // Bytes are text for these types, as the generator says of `format: binary`.
  body: data as unknown as string,
  bodySerializer: (body) => body,
});
assert.equal(image.response.status, 201, JSON.stringify(image.error));
const download = await mica.GET("/v1/images/{id}/data", {
  params: { path },
  parseAs: "arrayBuffer",
});
assert(download.data !== undefined && data.equals(Buffer.from(download.data)));
const volume = await mica.PUT("/v1/volumes/{id}", {
  params: { path, query: { wait: 60 }, header: { "If-None-Match": "*" } },
  body: { spec: { datastore: id, size_bytes: 5 * 2 ** 30 } },
});
assert.equal(volume.data?.state, "succeeded");
const minimal: components["schemas"]["VmBody"] = { spec: { datastore: id } };
const body = { spec: { ...minimal.spec, memory_bytes: 64 * 2 ** 20, disks: [{ volume: id }] } };
const vm = await mica.PUT("/v1/vms/{id}", {
  params: { path, header: { "If-None-Match": "*" } },
  body,
});
assert.equal(vm.data?.spec.cpus.count, 1, JSON.stringify(vm.error));
const again = await mica.PUT("/v1/vms/{id}", {
  params: { path, header: { "If-None-Match": "*" } },
  body,
});
assert.deepEqual([again.response.status, kind(again.error)], [412, "already-exists"]);
const etag = vm.response.headers.get("etag") ?? "";
const change = () =>
  mica.PATCH("/v1/vms/{id}", {
    params: { path, header: { "If-Match": etag } },
    headers: { "Content-Type": "application/merge-patch+json" },
    body: { spec: { cpus: { count: 2 } } },
  });
assert.equal((await change()).data?.spec.cpus.count, 2);
assert.equal((await change()).response.status, 412);
const started = await mica.POST("/v1/vms/{id}/start", {
  params: { path, query: { wait: 120 } },
});
assert.equal(started.data?.state, "succeeded");
const running = await mica.GET("/v1/vms/{id}", { params: { path } });
assert.equal(running.data?.status.state, "running");
const twice = await mica.POST("/v1/vms/{id}/start", { params: { path } });
assert.deepEqual([twice.data?.state, twice.data?.unchanged], ["succeeded", true]);
const shot = await mica.GET("/v1/vms/{id}/screenshot", {
  params: { path },
  parseAs: "arrayBuffer",
});
assert(shot.data !== undefined && Buffer.from(shot.data).subarray(1, 4).toString() === "PNG");
const early = await mica.DELETE("/v1/vms/{id}", { params: { path } });
assert.equal(early.response.status, 409);
const off = await mica.POST("/v1/vms/{id}/power-off", { params: { path, query: { wait: 60 } } });
assert.equal(off.data?.state, "succeeded");
const gone = await mica.DELETE("/v1/vms/{id}", {
  params: { path, query: { with_volumes: true } },
});
assert.equal(gone.response.status, 204);
assert.equal((await mica.DELETE("/v1/images/{id}", { params: { path } })).response.status, 204);
assert.equal((await mica.GET("/v1/vms/{id}", { params: { path } })).response.status, 404);
console.log("done");
