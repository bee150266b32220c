// Inside a container: clients in JavaScript of the credentials and of the metadata, chosen by the first argument. Each prints one
// JSON value, or fails. Nothing of this repository is used.
'use strict';
const modules = require('module').createRequire(process.env.MODULES + '/');
const { fromHttp } = modules('@aws-sdk/credential-provider-http');
const { fromContainerMetadata } = modules('@smithy/credential-provider-imds');
const { awsEcsDetector } = modules('@opentelemetry/resource-detector-aws');
const { detectResources } = modules('@opentelemetry/resources');

const path = process.env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;
const shown = (keys) => ({
  AccessKeyId: keys.accessKeyId, SecretAccessKey: keys.secretAccessKey, Token: keys.sessionToken,
  seconds: (keys.expiration.getTime() - Date.now()) / 1000,
});
const message = (error) => String(error.message || error);

const clients = {
  http: async () => shown(await fromHttp()()),
  imds: async () => shown(await fromContainerMetadata()()),
  wrong_id: async () => {
    process.env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI = path.slice(0, -4) + 'beef';
    return [
      await fromHttp({ maxRetries: 0 })().then(shown, message),
      await fromContainerMetadata()().then(shown, (error) => error.statusCode || message(error)),
    ];
  },
  // Asks until the credentials come.
  unavailable: async () => {
    for (const refusals = [];;) {
      const answer = await fromHttp({ maxRetries: 0 })().then(shown, message);
      if (answer.AccessKeyId) return { AccessKeyId: answer.AccessKeyId, refusals };
      if (!refusals.includes(answer)) refusals.push(answer);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  },
  detector: async () => {
    const resource = detectResources({ detectors: [awsEcsDetector] });
    await resource.waitForAsyncAttributes();
    return resource.attributes;
  },
};
clients[process.argv[2] || process.argv[1]]().then(
  (value) => console.log(JSON.stringify(value)),
  (error) => { console.error(error); process.exit(1); },
);
