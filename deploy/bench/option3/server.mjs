// The draft that Sluice replaces, as it was written: Express validates, asks Redis
// whether the key is known, adds a job to a BullMQ queue and answers 202.
// usage: node server.mjs PORT REDIS_PORT
import { randomUUID } from 'node:crypto';
import { Queue } from 'bullmq';
import express from 'express';
import { Redis } from 'ioredis';

const [port, redisPort] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port: redisPort, maxRetriesPerRequest: null };
const redis = new Redis(connection);
const queue = new Queue('telemetry-events', { connection });
const app = express();
app.use(express.json());

app.get('/readyz', async (_req, res) => {
  await redis.ping();
  res.send('ready');
});

app.post('/api/events', async (req, res) => {
  const event = req.body ?? {};
  for (const name of ['source', 'event_type', 'actor_id', 'occurred_at']) {
    if (typeof event[name] !== 'string' || event[name] === '') {
      res.status(400).json({ error: `${name} is missing` });
      return;
    }
  }
  const eventId = randomUUID();
  const key = `idem:${event.source}:${event.event_type}:${event.actor_id}:${event.occurred_at}`;
  if (await redis.exists(key)) {
    res.status(202).json({ accepted: true, deduplicated: true });
    return;
  }
  await redis.setex(key, 3600, '1');
  await queue.add('persist', { ...event, eventId }, {
    attempts: 3,
    backoff: { type: 'exponential', delay: 1000 },
    removeOnComplete: true,
  });
  res.status(202).json({ accepted: true, event_id: eventId });
});

app.listen(port, '127.0.0.1');
