/*-------------------------------------------------------------------------
 *
 * run_failure.c
 *		What follows the error of a run.
 *
 * The run has been rolled back.  If the error is nobody's fault, as a deadlock, the run
 * is tried again at once, behind those who were in its way.  Otherwise the failure is
 * recorded, in a transaction of its own.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

/* How long (ms) to wait after a failure for whose record there was no space. */
#define SHORTAGE_PAUSE		1000

/* So often a record is tried again that has lost a deadlock, after so long (ms) at most. */
#define RECORD_TRIES		100
#define RECORD_PAUSE		1000

/* Return how a run has ended that was stopped by an error. */
RunStatus
run_failure_status(const ErrorData *error)
{
	switch (stop_get_reason(error))
	{
		case STOP_CANCEL:
			return RUN_CANCELLED;
		case STOP_TIMEOUT:
			return RUN_TIMEOUT;
		default:
			return RUN_FAILED;
	}
}

/* Record a failure in a transaction of its own. */
static void
run_failure_write(Run *run, const ErrorData *error)
{
	Failure		failure = {run_failure_status(error), error, run->callback, error->message};
	const char *unbound = NULL;
	Store	   *store;

	transaction_begin();
	transaction_enter_bookkeeping(run);
	ts_my_worker->ending = true;
	run->start.tids.known = false;
	if (run->binding != NULL)
		unbound = callback_unbound(run->binding);
	if (unbound != NULL)
		failure.message = unbound;
	store = transaction_open_store(run);
	if (store == NULL)
		failure_log(&run->start, &failure, NULL);
	else
	{
		outcome_failed(store, &run->start, &failure, run->report);
		store_close(store, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	transaction_leave_bookkeeping();
}

/*
 * Return whether an error is nobody's fault, so that the run can just be tried
 * again.  That is so for deadlocks and serialization conflicts, and for what the
 * server says when a function that it has found is dropped under its eyes.
 */
bool
run_failure_lost_race(const ErrorData *error, uint64 generation)
{
	bool		changed;

	if (error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		return true;
	if (error->sqlerrcode != ERRCODE_INTERNAL_ERROR)
		return false;

	/* a new transaction learns of what others have done meanwhile */
	StartTransactionCommand();
	changed = (callback_generation() != generation);
	CommitTransactionCommand();
	return changed;
}

/*
 * Let those go first who were in the way of a run: for some 10 ms, and twice as
 * long each time.
 */
void
run_failure_step_aside(int tries)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 5L << tries, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Wait a while, whoever sets the latch. */
static void
run_failure_pause(long ms)
{
	int64		end = process_ticks() + ms * INT64CONST(1000);
	long		left;

	while ((left = (long) ((end - process_ticks() + 999) / 1000)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		QueryCancelPending = false; /* no run is in progress */
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Record a failure.  The transaction is tried again if it loses a deadlock, when those who
 * were in its way have had time to go first, and the callback is not called again for that.
 * If there is no space for it, or the tables have become those of another version, the task
 * stays as it was and will be run again, when the scheduler has written down that this run
 * has begun: it is a lost run whose worker leaves.  Not at once: there is nothing that would
 * slow it down, or the tasks behind it.
 */
void
run_failure_record(Run *run, const ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile second;
	volatile int tries = 0;

	do
	{
		second = NULL;
		if (tries > 0)
			run_failure_pause(Min(5L << Min(tries, 10), RECORD_PAUSE));
		PG_TRY();
		{
			run_failure_write(run, error);
		}
		PG_CATCH();
		{
			second = transaction_roll_back(context);
		}
		PG_END_TRY();
	} while (second != NULL && second->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED &&
			 tries++ < RECORD_TRIES);
	if (second == NULL)
		return;
	if (!shortage_caused(second) &&
		second->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		ReThrowError(second);

	ereport(LOG,
			(errcode(second->sqlerrcode),
			 errmsg("could not record that task \"%s\" has failed: %s",
					failure_one_line(run->start.task_id), failure_one_line(second->message)),
			 errdetail("The task is run again."),
			 errhidestmt(true)));
	run_announce(run, true);
	run_failure_pause(SHORTAGE_PAUSE);
	proc_exit(0);
}
