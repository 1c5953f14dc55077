import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.KinesisClientLibException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A worker of the Java KCL that tells on its standard output what it does, a line for each event. It stops in good order when its
 * standard input ends.
 */
public final class KclWorker {
    private static final PrintStream OUT = System.out;

    private KclWorker() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = options(arguments);
        Scheduler scheduler = scheduler(options);
        Thread running = new Thread(scheduler, "scheduler");
        running.start();
        Thread stopping = new Thread(() -> stopAtEndOfInput(scheduler), "stopping");
        stopping.setDaemon(true);
        stopping.start();
        running.join();
        tell("stopped");
        System.exit(0);
    }

    private static Map<String, String> options(String[] arguments) {
        Map<String, String> options = new TreeMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i], arguments[i + 1]);
        }
        return options;
    }

    private static Scheduler scheduler(Map<String, String> options) {
        String stream = options.get("--stream");
        StaticCredentialsProvider credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("local", "local"));
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .region(Region.EU_WEST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(options.get("--kinesis")))
                .httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1))
                .build();
        DynamoDbAsyncClient dynamodb = DynamoDbAsyncClient.builder()
                .region(Region.EU_WEST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(options.get("--dynamodb")))
                .build();
        // Never asked: there are no metrics.
        CloudWatchAsyncClient cloudwatch = CloudWatchAsyncClient.builder()
                .region(Region.EU_WEST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create("http://127.0.0.1:1"))
                .build();
        InitialPositionInStreamExtended start =
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start),
                options.get("--application"),
                kinesis,
                dynamodb,
                cloudwatch,
                options.get("--worker"),
                Processor::new);
        var leases = configs.leaseManagementConfig();
        var assignment = leases.workerUtilizationAwareAssignmentConfig();
        var coordinator = configs.coordinatorConfig();
        set(options, "--assignment-millis", leases::leaseAssignmentIntervalMillis);
        set(options, "--lock-millis", leases::dynamoDbLockBasedLeaderLeaseDurationInMillis);
        set(options, "--heartbeat-millis", leases::dynamoDbLockBasedLeaderHeartbeatPeriodInMillis);
        set(options, "--report-millis", assignment::workerMetricsReporterFreqInMillis);
        set(options, "--balance-every", runs -> assignment.varianceBalancingFrequency(runs.intValue()));
        set(options, "--parent-poll-millis", coordinator::parentShardPollIntervalMillis);
        PollingConfig polling = new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(200);
        return new Scheduler(
                configs.checkpointConfig(),
                coordinator,
                leases,
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
    }

    /** Without the option, the KCL's default stays. */
    private static void set(Map<String, String> options, String name, Consumer<Long> setting) {
        if (options.containsKey(name)) {
            setting.accept(Long.parseLong(options.get(name)));
        }
    }

    private static void stopAtEndOfInput(Scheduler scheduler) {
        try {
            while (System.in.read() >= 0) {}
            tell("stopping");
            scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS);
        } catch (Exception error) {
            tell("stopping failed " + error);
            System.exit(1);
        }
    }

    private static synchronized void tell(String event) {
        OUT.println(event);
        OUT.flush();
    }

    private static final class Processor implements ShardRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            tell("begins " + shard + " " + input.extendedSequenceNumber().sequenceNumber());
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            for (KinesisClientRecord record : input.records()) {
                String data = StandardCharsets.UTF_8.decode(record.data().duplicate()).toString();
                tell("record " + shard + " " + record.partitionKey() + " " + data);
            }
            if (!input.records().isEmpty()) {
                checkpoint(input.checkpointer());
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            tell("loses " + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer());
            tell("ends " + shard);
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(input.checkpointer());
            tell("drains " + shard);
        }

        private void checkpoint(RecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
            } catch (KinesisClientLibException | RuntimeException error) {
                tell("refused " + shard + " " + error.getClass().getSimpleName());
            }
        }
    }
}
