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

/* Add a task that is known by its id, if it is there. */
static void
lock_order_add_id(LockOrder *order, Store *store, int64 id)
{
	TaskRow		task;

	if (store_get_task(store, id, &task))
		lock_order_add(order, ROW_GET(ObjectId, &task, task_owner),
					   TextDatumGetCString(ROW_DATUM(&task, task_task_id)), id);
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

/* Add all that are to run after a task, and with two levels all that are after these. */
static void
lock_order_add_followers(LockOrder *order, Store *store, int64 id, int levels)
{
	int			n;
	int64	   *children = edges_children(store, id, &n);

	for (int i = 0; i < n; i++)
	{
		lock_order_add_id(order, store, children[i]);
		if (levels > 1)
			lock_order_add_followers(order, store, children[i], levels - 1);
	}
	pfree(children);
}

/*
 * Lock some tasks, and what hears of it when they are removed: all that are to run after
 * them, which may fail, and those after these.
 */
void
lock_with_followers(Store *store, const int64 *ids, int n)
{
	LockOrder  *order = lock_order_begin();

	for (int i = 0; i < n; i++)
		lock_order_add_followers(order, store, ids[i], 2);
	for (int i = 0; order->n > 0 && i < n; i++)
		lock_order_add_id(order, store, ids[i]);
	lock_order_take(order, store);
}
