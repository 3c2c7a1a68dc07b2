// The flow with what openapi-generator made for Go.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	mica "mica.example/flow/made"
)

var name = os.Getenv("MICA_NAME")

func need(ok bool, told ...any) {
	if !ok {
		panic(fmt.Sprintln(told...))
	}
}

func fine[T any](value T, _ *http.Response, err error) T {
	var answer *mica.GenericOpenAPIError
	if errors.As(err, &answer) {
		panic(fmt.Sprint(err, string(answer.Body())))
	}
	need(err == nil, err)
	return value
}

// kind is the status of a refusal and the last part of its problem's type.
func kind(response *http.Response, err error) string {
	var answer *mica.GenericOpenAPIError
	need(errors.As(err, &answer), "it was not refused", err)
	problem, ok := answer.Model().(mica.Problem)
	need(ok, "no problem", err)
	return fmt.Sprint(response.StatusCode, " ", problem.Code)
}

func client(token string) *mica.APIClient {
	pem, err := os.ReadFile(os.Getenv("MICA_CERTIFICATE"))
	need(err == nil, err)
	roots := x509.NewCertPool()
	need(roots.AppendCertsFromPEM(pem))
	configuration := mica.NewConfiguration()
	configuration.Servers = mica.ServerConfigurations{{URL: os.Getenv("MICA_ADDRESS")}}
	configuration.AddDefaultHeader("Authorization", "Bearer "+token)
	configuration.HTTPClient = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	return mica.NewAPIClient(configuration)
}

func content(file *os.File) []byte {
	_, err := file.Seek(0, io.SeekStart)
	need(err == nil, err)
	data, err := io.ReadAll(file)
	need(err == nil, err)
	return data
}

func main() {
	ctx := context.Background()
	first := client(os.Getenv("MICA_TOKEN"))
	host := fine(first.HostAPI.GetHost(ctx).Execute())
	need(host.Status.Memory.TotalBytes > 1<<31)
	token := *mica.NewTokenBody(*mica.NewTokenSpec(mica.ROLE_ADMIN))
	api := client(fine(first.AccessAPI.CreateToken(ctx, name).TokenBody(token).Execute()).Secret)
	need(fine(api.AccessAPI.GetOwnToken(ctx).Execute()).Id == name)

	place := mica.NewDatastoreSpec(mica.DATASTOREKIND_DIRECTORY)
	place.SetPath(os.Getenv("MICA_FOLDER"))
	made := fine(api.DatastoresAPI.CreateDatastore(ctx, name).Wait(60).
		DatastoreBody(*mica.NewDatastoreBody(*place)).Execute())
	need(made.State == "succeeded")

	file, err := os.Open(os.Getenv("MICA_IMAGE"))
	need(err == nil, err)
	data := content(file)
	_, _ = file.Seek(0, io.SeekStart)
	sum := sha256.Sum256(data)
	image := fine(api.ImagesAPI.UploadImage(ctx, name).Datastore(name).Format("raw").
		Sha256(hex.EncodeToString(sum[:])).Body(file).Execute())
	need(image.Spec.SizeBytes == int64(len(data)))
	need(bytes.Equal(content(fine(api.ImagesAPI.DownloadImage(ctx, name).Execute())), data))

	volume := mica.NewVolumeBody(*mica.NewVolumeSpec(name, 5<<30))
	made = fine(api.VolumesAPI.CreateVolume(ctx, name).Wait(60).IfNoneMatch("*").
		VolumeBody(*volume).Execute())
	need(made.State == "succeeded")

	spec := mica.NewVmSpec(name)
	spec.SetMemoryBytes(64 << 20)
	spec.SetDisks([]mica.DiskSpec{*mica.NewDiskSpec(name)})
	body := *mica.NewVmBody(*spec)
	create := api.VmsAPI.PutVm(ctx, name).IfNoneMatch("*").VmBody(body)
	vm, answer, err := create.Execute()
	need(err == nil && answer.StatusCode == 201 && vm.Spec.Cpus.Count == 1, err)
	etag := answer.Header.Get("ETag")
	_, answer, err = create.Execute()
	need(kind(answer, err) == "412 already-exists")

	cpus := mica.NewCpuSpecPatch()
	cpus.SetCount(2)
	change := mica.NewVmSpecPatch()
	change.SetCpus(*cpus)
	patch := mica.NewVmBodyPatch()
	patch.SetSpec(*change)
	send := api.VmsAPI.PatchVm(ctx, name).IfMatch(etag).VmBodyPatch(*patch)
	need(fine(send.Execute()).Spec.Cpus.Count == 2)
	_, answer, err = send.Execute()
	need(kind(answer, err) == "412 revision-mismatch")

	need(fine(api.VmsAPI.StartVm(ctx, name).Wait(120).Execute()).State == "succeeded")
	need(fine(api.VmsAPI.GetVm(ctx, name).Execute()).Status.State == "running")
	twice := fine(api.VmsAPI.StartVm(ctx, name).Execute())
	need(twice.State == "succeeded" && twice.Unchanged)
	picture := content(fine(api.VmsAPI.TakeScreenshot(ctx, name).Execute()))
	need(bytes.HasPrefix(picture, []byte("\x89PNG")))
	answer, err = api.VmsAPI.DeleteVm(ctx, name).Execute()
	need(strings.HasPrefix(kind(answer, err), "409 "))
	need(fine(api.VmsAPI.PowerOffVm(ctx, name).Wait(60).Execute()).State == "succeeded")
	answer, err = api.VmsAPI.DeleteVm(ctx, name).WithVolumes(true).Execute()
	need(err == nil && answer.StatusCode == 204, err)
	answer, err = api.ImagesAPI.DeleteImage(ctx, name).Execute()
	need(err == nil && answer.StatusCode == 204, err)
	_, answer, err = api.VmsAPI.GetVm(ctx, name).Execute()
	need(kind(answer, err) == "404 not-found")
	fmt.Println("done")
}
