/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Short runs that share a transaction: taskshed.tasks_per_commit.
 *
 * Most of what a short run costs is its transaction.  So when a run is over but for
 * the commit, further tasks of the slot that were due when the transaction began are
 * run in it, each as it would be by itself: read afresh, announced, called at top
 * level, with all user code finished, settings and session put back, and its outcome
 * written before the next one begins.  Only the commit is shared, and the writing of
 * the records.  The slot names those that are done until the commit, so that nobody
 * takes them for tasks that wait.
 *
 * What would hold others up is not taken in: only callbacks that are known to be
 * short are, for half a millisecond in all.  What leaves something behind in the
 * transaction is the last of its batch.
 *
 * Whatever goes wrong, the transaction is rolled back as if it had not been, and each
 * task is run by itself, which decides what has gone wrong and with which of them.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/be-fsstubs.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/* No further run begins when the transaction has gone on for so long (us). */
#define BATCH_TIME		(500 * TS_SLOWER)

/* Callbacks that take longer (us) run alone. */
#define BATCH_SHORT		(200 * TS_SLOWER)

/* A run that takes longer (ms) has its transaction given up. */
#define BATCH_LIMIT		(50 * TS_SLOWER)

/*
 * What the duration (us) of a callback is taken to be after it has spoilt a batch.
 * Each run by itself takes an eighth off, so some 40 of them come before another try.
 */
#define BATCH_SPOILT	(50000 * TS_SLOWER)

/* Subtransactions are kept by others up to 64 of a transaction (PGPROC). */
#define BATCH_SUBXACTS	32

static TimeoutId limit;

/* So many runs go alone, since a batch has failed. */
static int	batch_alone = 0;

/* The time of a batch is up: this run was not short. */
static volatile sig_atomic_t limit_reached = false;

/* Has the callback done what its transaction keeps?  Set by the hooks. */
bool		batch_must_end = false;

static void
batch_limit_handler(void)
{
	limit_reached = true;
	InterruptPending = QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* Get ready, once a worker. */
void
batch_init(void)
{
	limit = RegisterTimeout(USER_TIMEOUT, batch_limit_handler);
}

/* Learn how long a callback takes. */
void
batch_learn(Callback *callback, int64 took)
{
	took = Max(took, 1);
	callback->typical = callback->typical == 0 ? took : (callback->typical * 7 + took) / 8;
}

static bool
batch_is_short(const Callback *callback)
{
	return callback->kind == CALLBACK_FUNCTION && !callback->is_constant &&
		callback->typical > 0 && callback->typical <= BATCH_SHORT;
}

/*
 * Return whether other runs may follow in the transaction of one, which has been called.
 * Asked once for each run: those that go alone after a failure are counted here.
 */
bool
batch_may_begin(const Run *run, const Callback *callback)
{
	if (batch_alone > 0)
		batch_alone--;
	return batch_alone == 0 && ts_tasks_per_commit > 1 && run->pin != NULL &&
		batch_is_short(callback) && run_start_may_share(&run->start);
}

/* Give the transaction up: a run in it was not short. */
static void
batch_report_limit(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg_internal("a run of a shared transaction took too long")));
}

/*
 * Put the session back as new between two runs of a transaction, as session_reset
 * does between transactions.  Return false if something is left that ends with the
 * transaction only.
 */
static bool
batch_reset_session(void)
{
	if (batch_must_end || (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) ||
		MyProc->subxidStatus.count >= BATCH_SUBXACTS || MyProc->subxidStatus.overflowed)
		return false;
	session_reset_within();
	AtEOXact_LargeObject(true);
	pgstat_clear_snapshot();
	return !compat_holds_locks(USER_LOCKMETHOD);
}

/*
 * Run one more task in the transaction, if it still is the worker's to take.  Return
 * false if it is not, or is to be run by itself: then it is where it was.
 */
static bool
batch_run_one(Batch *batch, Run *first, const TsHanded *task, int *commit_mode)
{
	Run		   *run;
	Callback   *callback;

	MemoryContextSwitchTo(first->context);
	run = palloc0(sizeof(Run));
	run->id = task->id;
	run->alarm_tid = task->alarm_tid;
	run->report = &batch->reports[batch->n];
	run->context = first->context;
	run->begun_for = DT_NOBEGIN;
	run->before = first->before;
	run->lock_timeout = first->before.lock_timeout;
	run->shared = true;
	run->store = first->store;

	/* read the task, and see whether it may be run here */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!run_read(run))
	{
		PopActiveSnapshot();
		if (run->put_off || !handed_take(task->id, batch->now))
			return false;
		batch->ntaken++;
		batch->statuses[batch->n++] = RUN_NONE;
		batch->now = GetCurrentTimestamp();
		return true;
	}
	MemoryContextSwitchTo(run->context);
	callback = callback_prepare(run->callback, run->kwargs);
	if (!batch_is_short(callback) || !handed_take(task->id, run->start.started_at))
	{
		PopActiveSnapshot();
		return false;
	}
	batch->ntaken++;
	batch->statuses[batch->n] = RUN_NONE;
	batch->run = run;
	batch->callback = callback;
	run->start.impatient = true;
	run_announce(run, false);

	/* call it */
	transaction_leave_bookkeeping();
	SetCurrentStatementStartTimestamp();
	run_show(run);
	stop_enable(run->start.timeout);
	transaction_set_commit_mode(run->before.synchronous_commit);
	callback_hold(callback);
	run_call(run, callback);
	batch->now = GetCurrentTimestamp();
	batch_learn(callback, batch->now - run->start.started_at);
	callback_release(callback);
	if (limit_reached)
		batch_report_limit();
	*commit_mode = Max(*commit_mode, synchronous_commit);

	/* write its outcome */
	run_write_outcome(run, true);
	batch->statuses[batch->n++] = RUN_SUCCEEDED;
	batch->callback = NULL;
	return true;
}

/*
 * Run further tasks in the transaction of a run that is over but for the commit, as
 * many as there are and may be.  Called and left within the bookkeeping of the last.
 */
void
batch_extend(Batch *batch, Run *first)
{
	TimestampTz due = GetCurrentTransactionStartTimestamp();
	int			commit_mode = synchronous_commit;
	TsHanded	task;

	limit_reached = false;
	batch->extending = true;
	batch->now = GetCurrentTimestamp();
	while (batch->n + 1 < ts_tasks_per_commit && batch->now - due < BATCH_TIME &&
		   !limit_reached && handed_look(due, batch->now, &task) && batch_reset_session())
	{
		if (batch->ntaken == 0)
			enable_timeout_every(limit, TimestampTzPlusMilliseconds(batch->now, BATCH_LIMIT),
								 BATCH_LIMIT);
		if (!batch_run_one(batch, first, &task, &commit_mode))
			break;
	}
	disable_timeout(limit, false);

	/*
	 * a cancel that came of it would be taken for one of the commit's wait
	 * for a standby
	 */
	if (limit_reached)
		batch_report_limit();
	ts_my_worker->ending = true;
	transaction_set_commit_mode(commit_mode);
}

/*
 * Take note that a batch has failed, and was rolled back.  The caller runs the task that
 * the transaction began with again.  The others go back to the scheduler, and with them
 * what has not begun yet, so that none waits for another, and all come in their order;
 * but one that was cancelled is over.  This worker runs as many by themselves before it
 * tries again, and the callback that was being called even more: so whatever was wrong
 * is not in the next one, too.
 */
void
batch_fall_apart(Batch *batch, int64 first_id, ErrorData *error)
{
	ts_debug(DEBUG1, "%d tasks that shared a transaction are run one by one: %s",
			 batch->ntaken + 1, error->message);
	batch_alone = TS_HANDED;
	if (batch->callback != NULL)
		batch->callback->typical = BATCH_SPOILT;
	for (int i = 0; i < batch->ntaken; i++)
	{
		batch->statuses[i] = RUN_NONE;
		batch->reports[i].fate = TS_FATE_LOOK;
	}
	if (batch->ntaken > batch->n && stop_get_reason(error) == STOP_CANCEL)
	{
		batch->run->start.impatient = false;
		error->message = "the run was cancelled";
		run_failure_record(batch->run, error);
		batch->statuses[batch->n] = RUN_CANCELLED;
	}
	handed_give_back(batch->reports, batch->ntaken, first_id);
	batch->n = 0;
}
