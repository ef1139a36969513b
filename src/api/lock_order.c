/*-------------------------------------------------------------------------
 *
 * lock_order.c
 *		Locking several tasks in one order: by owner and task_id.
 *
 * Two calls, or a call and the end of a run, that lock the same tasks in the same order do
 * not wait for each other.  Who can say beforehand what it will need collects it here.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "api/api.h"

typedef struct LockItem
{
	Oid			owner;
	char	   *task_id;
	int64		id;
} LockItem;

struct LockOrder
{
	int			n;
	int			max;
	LockItem   *items;
};

LockOrder *
lock_order_begin(void)
{
	LockOrder  *order = palloc(sizeof(LockOrder));

	order->n = 0;
	order->max = 64;
	order->items = palloc(order->max * sizeof(LockItem));
	return order;
}

/* Add a task, whose task_id is kept where it is. */
void
lock_order_add(LockOrder *order, Oid owner, char *task_id, int64 id)
{
	LockItem   *item;

	if (order->n == order->max)
	{
		order->max *= 2;
		order->items = repalloc_huge(order->items, order->max * sizeof(LockItem));
	}
	item = &order->items[order->n++];
	item->owner = owner;
	item->task_id = task_id;
	item->id = id;
}

static int
lock_item_cmp(const void *a, const void *b)
{
	const LockItem *x = a;
	const LockItem *y = b;
	int			cmp;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	cmp = strcmp(x->task_id, y->task_id);
	if (cmp != 0)
		return cmp;
	return x->id < y->id ? -1 : x->id > y->id ? 1 : 0;
}

/* Lock all of them that are still there. */
void
lock_order_take(LockOrder *order, Store *store)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed locks",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	qsort(order->items, order->n, sizeof(LockItem), lock_item_cmp);
	for (int i = 0; i < order->n; i++)
	{
		AlarmRow	alarm;

		CHECK_FOR_INTERRUPTS();
		if (i == 0 || order->items[i].id != order->items[i - 1].id)
			(void) store_lock_alarm(store, order->items[i].id, &alarm, LockWaitBlock);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Add the tasks of some ids to those that are there already, each once. */
static void
lock_order_collect(HTAB *ids, const int64 *some, int n)
{
	for (int i = 0; i < n; i++)
		hash_search(ids, &some[i], HASH_ENTER, NULL);
}

/* Return what is in a set of ids, as an array of *n. */
static int64 *
lock_order_list(HTAB *ids, int *n)
{
	int64	   *list = MemoryContextAllocHuge(CurrentMemoryContext,
											  (hash_get_num_entries(ids) + 1) * sizeof(int64));
	HASH_SEQ_STATUS seq;
	int64	   *id;

	*n = 0;
	hash_seq_init(&seq, ids);
	while ((id = hash_seq_search(&seq)) != NULL)
		list[(*n)++] = *id;
	return list;
}

/*
 * Lock some tasks, and what hears of it when they are removed: all that are to run after
 * them, which may fail, and those after these.
 */
void
lock_with_followers(Store *store, const int64 *ids, int n)
{
	LockOrder  *order = lock_order_begin();
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(int64),.hcxt = CurrentMemoryContext};
	HTAB	   *all = hash_create("taskshed tasks to lock", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed locks",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = CurrentMemoryContext;
	const int64 *level = ids;
	int			nlevel = n;

	/* those that follow, and those that follow them */
	for (int i = 0; i < 2; i++)
	{
		for (int j = 0; j < nlevel; j++)
		{
			int			nchildren;
			int64	   *children = edges_children(store, level[j], &nchildren);

			CHECK_FOR_INTERRUPTS();
			lock_order_collect(all, children, nchildren);
			pfree(children);
		}
		level = lock_order_list(all, &nlevel);
	}
	if (nlevel == 0)
		return;

	/* with the others, in their order */
	lock_order_collect(all, ids, n);
	level = lock_order_list(all, &nlevel);
	for (int i = 0; i < nlevel; i++)
	{
		TaskRow		task;

		MemoryContextSwitchTo(context);
		if (store_get_task(store, level[i], &task))
		{
			char	   *task_id = TextDatumGetCString(ROW_DATUM(&task, task_task_id));

			MemoryContextSwitchTo(outer);
			lock_order_add(order, ROW_GET(ObjectId, &task, task_owner), pstrdup(task_id), level[i]);
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	hash_destroy(all);
	lock_order_take(order, store);
}
