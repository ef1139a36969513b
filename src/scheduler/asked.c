/*-------------------------------------------------------------------------
 *
 * asked.c
 *		Runs that somebody has asked for by request_run().
 *
 * A commit tells the numbers of its requests, or, where there was no room for them, that
 * all are to be read.  They are deleted in the transaction that has the tasks run once
 * more, so none is lost, whatever happens: a scheduler that comes later begins with all
 * there are.  It waits for nobody.  A request for a task that somebody is changing is
 * tried again, later and later.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* So many are settled in one transaction. */
#define ASKED_BATCH		1000

/* Those of tasks that somebody is changing are tried again after so long (us), at first and at most. */
#define LOCKED_SHORTEST	INT64CONST(10000)
#define LOCKED_LONGEST	USECS_PER_SEC

/* The numbers of requests. */
typedef struct Numbers
{
	int			n;
	int			max;
	int64	   *numbers;
} Numbers;

static Numbers noted;			/* by commits */
static Numbers locked;			/* of tasks that somebody is changing */
static bool read_all = false;	/* all are to be read, */
static int64 read_from;			/* from this one on */
static TimestampTz try_again;	/* those that are locked */
static int64 wait = LOCKED_SHORTEST;

/* What the transaction has done that goes on. */
static int	nsettled;
static int	had_locked;
static int64 next_from;
static bool has_read_all;

static void
asked_add(Numbers *numbers, int64 number)
{
	if (numbers->n == numbers->max)
	{
		numbers->max = Max(64, 2 * numbers->max);
		numbers->numbers = numbers->numbers == NULL ?
			MemoryContextAlloc(TopMemoryContext, numbers->max * sizeof(int64)) :
			repalloc_huge(numbers->numbers, numbers->max * sizeof(int64));
	}
	numbers->numbers[numbers->n++] = number;
}

/* Take notice of a request. */
void
asked_note(int64 number)
{
	asked_add(&noted, number);
}

/* Have all requests be read. */
void
asked_note_all(void)
{
	read_all = true;
	read_from = PG_INT64_MIN;
	noted.n = locked.n = 0;
}

/* Return when there are requests to be settled: DT_NOBEGIN is now, DT_NOEND never. */
TimestampTz
asked_settle_at(void)
{
	if (noted.n > 0 || read_all)
		return DT_NOBEGIN;
	return locked.n > 0 ? try_again : DT_NOEND;
}

static int
asked_cmp(const void *a, const void *b)
{
	const Request *x = a;
	const Request *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number ? 1 : 0;
}

/* Settle the requests for one task.  Return false if somebody else has it locked. */
static bool
asked_settle_task(Store *store, Request *requests, int n)
{
	AlarmRow	alarm;
	TaskRow		task;
	TM_Result	result = store_lock_alarm(store, requests[0].id, &alarm, LockWaitSkip);

	if (result == TM_WouldBlock)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (i == 0 || requests[i].number != requests[i - 1].number)
			requests_delete(store, &requests[i]);
	}
	if (result == TM_Ok && store_get_task(store, requests[0].id, &task))
		once_more_ask(store, &alarm, &task);
	return true;
}

/*
 * Settle some requests, in a transaction with a snapshot that is younger than the notes.
 * The caller calls asked_settled when that is committed.
 */
void
asked_settle(Store *store)
{
	Request    *requests = palloc(ASKED_BATCH * sizeof(Request));
	int			n = 0;
	int			end;

	/* what there is to do */
	if (try_again <= GetCurrentTimestamp())
	{
		while (locked.n > 0)
			asked_add(&noted, locked.numbers[--locked.n]);
	}
	for (nsettled = 0; nsettled < noted.n && n < ASKED_BATCH; nsettled++)
		n += requests_get(store, noted.numbers[nsettled], &requests[n]);
	has_read_all = false;
	next_from = read_from;
	if (read_all && n < ASKED_BATCH)
	{
		int			nread = requests_read(store, read_from, requests + n, ASKED_BATCH - n);

		n += nread;
		has_read_all = (n < ASKED_BATCH);
		if (nread > 0)
			next_from = requests[n - 1].number + 1;
	}

	/* one run for all that ask for a task */
	had_locked = locked.n;
	qsort(requests, n, sizeof(Request), asked_cmp);
	for (int i = 0; i < n; i = end)
	{
		for (end = i + 1; end < n && requests[end].id == requests[i].id; end++)
			;
		if (asked_settle_task(store, &requests[i], end - i))
			continue;
		for (int j = i; j < end; j++)
			asked_add(&locked, requests[j].number);
	}
	pfree(requests);
}

/* Forget what was settled, since that has been committed. */
void
asked_settled(void)
{
	noted.n -= nsettled;
	memmove(noted.numbers, noted.numbers + nsettled, noted.n * sizeof(int64));
	read_from = next_from;
	if (has_read_all)
		read_all = false;
	if (locked.n == 0)
		wait = LOCKED_SHORTEST;
	else if (had_locked == 0)
	{
		try_again = GetCurrentTimestamp() + wait;
		wait = Min(2 * wait, LOCKED_LONGEST);
	}
}
